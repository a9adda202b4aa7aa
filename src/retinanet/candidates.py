"""From raw outputs to detections: candidates, then non-maximum suppression (paper, section 3)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from src.retinanet.boxes import clip_boxes, decode_boxes, vote_boxes
from src.retinanet.settings import (
    DEFAULT_WEAK,
    PAPER_LIMITS,
    CandidateLimits,
    WeakLimits,
)
from src.structures import MAX_CANDIDATES, Detections, RawOutputs


def find_candidates(
    outputs: RawOutputs,
    anchors: Tensor,
    image_size: tuple[int, int],
    limits: CandidateLimits = PAPER_LIMITS,
) -> list[Detections]:
    """Decode the anchors that can still become detections, before non-maximum suppression.

    Boxes below half of the image's top score never survive, whatever the suppression does, because
    the top box always survives: they are left out here.

    Args:
        outputs: of the network.
        anchors: (A, 4) xyxy, pixels of the network input.
        image_size: height and width of the network input.
        limits: by default candidates score above .025, and at least half of the image's best score.

    Returns:
        For each image at most 1,000 candidates, best first, boxes inside the image.
    """
    scores, deltas, class_log_probs = outputs
    image, anchor = (scores > limits.min_score).nonzero(as_tuple=True)  # (N,), by image
    values = scores[image, anchor]
    boxes = clip_boxes(decode_boxes(deltas[image, anchor], anchors[anchor]), image_size)

    values = values.where((boxes[:, 2:] > boxes[:, :2]).all(dim=1), 0)  # no area, no candidate
    top = values.new_zeros(len(scores)).scatter_reduce(0, image, values, "amax")
    strong = (values > 0) & (values >= limits.min_share_of_top * top[image])

    order = strong.nonzero()[:, 0]
    order = order[values[order].argsort(descending=True, stable=True)]
    order = order[image[order].argsort(stable=True)]  # by image, then by score
    image, values, boxes = image[order], values[order], boxes[order]

    probs = class_log_probs.exp()
    counts = image.new_zeros(len(scores)).index_add(0, image, torch.ones_like(image)).tolist()
    return [
        Detections(
            vote_boxes(own_boxes, own_scores, image_size, limits.voting_iou),
            own_scores,
            class_probs,
        )
        for own_boxes, own_scores, class_probs in zip(
            (image_boxes[:MAX_CANDIDATES] for image_boxes in boxes.split(counts)),
            (image_scores[:MAX_CANDIDATES] for image_scores in values.split(counts)),
            probs,
            strict=True,
        )
    ]


def find_weak(
    outputs: RawOutputs,
    anchors: Tensor,
    image_size: tuple[int, int],
    found: list[Detections],
    limits: CandidateLimits = PAPER_LIMITS,
    weak: WeakLimits = DEFAULT_WEAK,
) -> list[Detections]:
    """Decode the best of the boxes that are no candidates.

    Args:
        outputs, anchors, image_size, limits: those that the candidates were found with.
        found: the candidates.
        weak: which boxes; the box head must have run wherever `weak.least_score` is exceeded.

    Returns:
        For each image at most `weak.max_count` boxes that overlap neither a candidate nor a better
        box of their own by more than `weak.max_iou`, best first; all score less than every
        candidate of the image.
    """
    if not weak.max_count:
        return [replace(image, boxes_xyxy=image.boxes_xyxy[:0], scores=image.scores[:0])
                for image in found]  # fmt: skip
    scores, deltas, _ = outputs
    top = torch.stack([image.scores[:1].sum() for image in found])  # 0 without a candidate
    is_weak = (scores <= limits.min_score) | (scores < limits.min_share_of_top * top[:, None])
    values = scores.where(is_weak & (scores > weak.min_score), 0)
    values, anchor = values.topk(min(MAX_CANDIDATES, len(anchors)), dim=1)  # (B, N)
    deltas = deltas.gather(1, anchor[..., None].expand(-1, -1, 4))
    boxes = clip_boxes(decode_boxes(deltas, anchors[anchor]), image_size)

    left = (values > 0) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
    place = left.nonzero(as_tuple=True)
    n_found = sum(len(image.scores) for image in found)
    kept = torch.zeros(n_found + len(place[0]), dtype=torch.bool, device=scores.device)
    index = torch.cat([torch.full_like(one.scores, i) for i, one in enumerate(found)])
    best = batched_nms(
        torch.cat([*(image.boxes_xyxy for image in found), boxes[place]]),
        torch.cat([*(image.scores for image in found), values[place]]),
        torch.cat([index.long(), place[0]]),
        weak.max_iou,
    )
    kept[best] = True
    left[place] = kept[n_found:]
    left &= left.cumsum(dim=1) <= weak.max_count
    counts = left.sum(dim=1).tolist()
    place = left.nonzero(as_tuple=True)
    return [
        Detections(own_boxes, own_scores, candidates.class_probs)
        for own_boxes, own_scores, candidates in zip(
            boxes[place].split(counts), values[place].split(counts), found, strict=True
        )
    ]


def suppress(detections: list[Detections], nms_iou: float) -> list[Detections]:
    """Drop every box that overlaps a better one of its image by more than `nms_iou`.

    Differs from the original: widths are x2 - x1, not a pixel more.
    """
    counts = [len(image.scores) for image in detections]
    boxes = torch.cat([image.boxes_xyxy for image in detections])
    scores = torch.cat([image.scores for image in detections])
    index = torch.arange(len(counts), device=boxes.device)
    image = index.repeat_interleave(torch.tensor(counts, device=boxes.device))
    kept = torch.zeros(len(scores), dtype=torch.bool, device=boxes.device)
    kept[batched_nms(boxes, scores, image, nms_iou)] = True
    return [
        Detections(found.boxes_xyxy[keep], found.scores[keep], found.class_probs)
        for found, keep in zip(detections, kept.split(counts), strict=True)
    ]
