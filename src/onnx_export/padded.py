"""Detections in tensors of one shape for any image, for graphs that run without Python (ONNX).

The same rules as in `retinanet.candidates`, without a loop over images and without lists: what an
image lacks is filled up with zeros.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from src.retinanet.boxes import clip_boxes, decode_boxes, vote_boxes
from src.retinanet.settings import PAPER_LIMITS, CandidateLimits
from src.structures import CLASS_NAMES, MAX_CANDIDATES

DECODING = (
    "boxes_xyxy: pixels of the input, x to the right; in the file x * shown_width / img_size + "
    "left. scores: 0 where there is no box. A box counts where scores * 5 > threshold."
)


class PaddedOutputs(NamedTuple):
    """What a padded detector computes: its results, then the steps that led there.

    Attributes:
        boxes_xyxy: (B, K, 4) float32, pixels of the network input, inside the image, best first.
        scores: (B, K) float32, descending; 0 where there is no box.
        class_probs: (B, 3) float32, probabilities of the images' classes.
        anchor_scores: (B, A) float32, as in `RawOutputs`.
        anchor_deltas: (B, A, 4) float32, as in `RawOutputs`.
        candidate_boxes_xyxy: (B, C, 4) float32, before suppression.
        candidate_scores: (B, C) float32, descending; 0 where there is no candidate.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    class_probs: Tensor
    anchor_scores: Tensor
    anchor_deltas: Tensor
    candidate_boxes_xyxy: Tensor
    candidate_scores: Tensor


RESULTS = PaddedOutputs._fields[:3]
STEPS = PaddedOutputs._fields[3:]


class PaddedDetector(nn.Module):
    """A network with its decoding, from images to boxes."""

    anchors: Tensor

    def __init__(
        self,
        network: nn.Module,
        anchors: Tensor,
        image_size: tuple[int, int],
        *,
        nms_iou: float | None,
        max_boxes: int = MAX_CANDIDATES,
        limits: CandidateLimits = PAPER_LIMITS,
    ) -> None:
        """Put network and decoding together.

        Args:
            network: gives `RawOutputs`.
            anchors: (A, 4) xyxy, pixels of the network input.
            image_size: height and width of the network input.
            nms_iou: a box that overlaps a better one by more is dropped; None keeps all.
            max_boxes: K, the boxes of an image; the weakest beyond are cut off.
            limits: which outputs become candidates.
        """
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.nms_iou = nms_iou
        self.max_boxes = max_boxes
        self.limits = limits
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, images: Tensor) -> PaddedOutputs:
        """Detect in images (B, 1, H, W) in [0, 1]."""
        scores, deltas, class_log_probs = self.network(images)
        candidates, candidate_scores = self._find_candidates(scores, deltas)
        kept_scores = candidate_scores
        if self.nms_iou is not None:
            kept = torch.ops.pneumonia.survives_nms(candidates, candidate_scores, self.nms_iou)
            kept_scores = torch.where(kept, candidate_scores, 0)
        boxes, box_scores = _best(candidates, kept_scores, self.max_boxes)
        return PaddedOutputs(
            torch.where(box_scores[..., None] > 0, boxes, 0),
            box_scores,
            class_log_probs.exp(),
            scores,
            deltas,
            candidates,
            candidate_scores,
        )

    def facts(self) -> dict[str, Any]:
        """Say what the boxes mean, for whoever uses the graph."""
        return {
            "decoding": DECODING,
            "nms_iou": self.nms_iou,
            "max_boxes": self.max_boxes,
            "max_candidates": MAX_CANDIDATES,
            "min_score": self.limits.min_score,
            "min_share_of_top": self.limits.min_share_of_top,
            "voting_iou": self.limits.voting_iou,
            "class_names": CLASS_NAMES,
        }

    def _find_candidates(self, scores: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """Do what `candidates.find_candidates` does: boxes (B, C, 4) and scores (B, C)."""
        boxes = clip_boxes(decode_boxes(deltas, self.anchors), self.image_size)
        has_area = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        values = torch.where(has_area & (scores > self.limits.min_score), scores, 0)
        boxes, values = _best(boxes, values, MAX_CANDIDATES)
        least = self.limits.min_share_of_top * values[:, :1]
        values = torch.where(values >= least, values, 0)
        return vote_boxes(boxes, values, self.image_size, self.limits.voting_iou), values


def _best(boxes_xyxy: Tensor, scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the `n` boxes (B, n, 4) of the highest scores (B, n), descending."""
    scores, index = scores.topk(min(n, scores.shape[1]))
    return boxes_xyxy.gather(1, index[..., None].expand(-1, -1, 4)), scores


@torch.library.custom_op("pneumonia::survives_nms", mutates_args=())
def survives_nms(boxes_xyxy: Tensor, scores: Tensor, nms_iou: float) -> Tensor:
    """Say which boxes non-maximum suppression keeps; an operation of its own, for ONNX has one.

    Args:
        boxes_xyxy: (B, C, 4).
        scores: (B, C); boxes of score 0 are none.
        nms_iou: a box that overlaps a better one by more is dropped.

    Returns:
        (B, C) bool.
    """
    image = torch.arange(len(scores), device=scores.device).repeat_interleave(scores.shape[1])
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept.view(-1)[batched_nms(boxes_xyxy.flatten(0, 1), scores.flatten(), image, nms_iou)] = True
    return kept & (scores > 0)


@survives_nms.register_fake
def _(boxes_xyxy: Tensor, scores: Tensor, nms_iou: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
