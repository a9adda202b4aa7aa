"""The training loss: focal, of boxes, and the whole image's log-likelihood (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from src.retinanet.boxes import box_iou, decode_boxes, encode_boxes, paired_giou
from src.retinanet.settings import PAPER_LOSS, LossSettings
from src.structures import Losses, RawOutputs, Target

MIN_PROBABILITY = 1e-4  # probabilities are clipped to [1e-4, 1 - 1e-4]; the original release


class Matches(NamedTuple):
    """Which anchor answers for which box.

    Attributes:
        positive: (B, A) bool, IoU with a true box at least 0.5, the paper's `positive_iou`.
        negative: (B, A) bool, IoU with every true box below 0.4, the paper's `negative_iou`.
        box_index: (B, A) the true box of the highest IoU; without meaning where not positive.
        boxes_xyxy: (B, M, 4) true boxes, padded; M is at least 1.
    """

    positive: Tensor
    negative: Tensor
    box_index: Tensor
    boxes_xyxy: Tensor


def detection_losses(
    outputs: RawOutputs,
    anchors: Tensor,
    targets: Sequence[Target],
    matches: Matches | None = None,
    settings: LossSettings = PAPER_LOSS,
) -> Losses:
    """Compute the three losses of a batch, each averaged over its images.

    Args:
        outputs: of the network; deltas are used only where an anchor is positive.
        anchors: (A, 4) xyxy, pixels of the network input.
        targets: B of them, boxes in the same pixels.
        matches: of these anchors and targets, where they are known already.
        settings: of the losses.

    Returns:
        The losses, scalars.
    """
    if matches is None:
        matches = match_anchors(anchors, [target.boxes_xyxy for target in targets], settings)
    categories = torch.tensor([target.category for target in targets])
    categories = categories.to(anchors.device, non_blocking=True)
    return Losses(
        classification=focal_loss(outputs.scores, matches, settings).mean(),
        regression=box_loss(outputs.deltas, anchors, matches, settings).mean(),
        global_classification=F.nll_loss(outputs.class_log_probs, categories),
        box_weight=settings.box_weight,
        global_weight=settings.global_weight,
    )


def match_anchors(
    anchors: Tensor, boxes_xyxy: Sequence[Tensor], settings: LossSettings = PAPER_LOSS
) -> Matches:
    """Assign true boxes to anchors by overlap; a box may get no anchor.

    Args:
        anchors: (A, 4) xyxy.
        boxes_xyxy: for each image (M_i, 4), M_i may be 0; best on the host, from where they go to
            the anchors' device together.
        settings: `positive_iou` and `negative_iou` are used.
    """
    # A box of size 0 pads: it overlaps nothing, and its IoU of 0 makes an anchor negative.
    padded = pad_sequence(
        [F.pad(boxes, (0, 0, 0, int(len(boxes) == 0))) for boxes in boxes_xyxy], batch_first=True
    ).to(anchors.device, non_blocking=True)
    best_iou, box_index = box_iou(anchors, padded).max(dim=-1)  # (B, A, M) -> (B, A)
    positive, negative = best_iou >= settings.positive_iou, best_iou < settings.negative_iou
    return Matches(positive, negative, box_index, padded)


def focal_loss(scores: Tensor, matches: Matches, settings: LossSettings = PAPER_LOSS) -> Tensor:
    """Compute the focal loss of each image: (B, A) probabilities -> (B,).

    The sum over the anchors that are not ignored, divided by max(1, positives): an image without
    boxes counts.
    """
    scores = scores.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    p_true = torch.where(matches.positive, scores, 1 - scores)
    alpha = torch.where(matches.positive, settings.alpha, 1 - settings.alpha)
    loss = -alpha * (1 - p_true) ** settings.gamma * p_true.log()
    counted = matches.positive | matches.negative
    n_positive = matches.positive.sum(dim=1).clamp(min=1)
    return torch.where(counted, loss, 0.0).sum(dim=1) / n_positive


def box_loss(
    deltas: Tensor, anchors: Tensor, matches: Matches, settings: LossSettings = PAPER_LOSS
) -> Tensor:
    """Compute the loss of the boxes of each image: (B, A, 4) -> (B,).

    "smooth_l1", the paper's, is of the four numbers of `encode_boxes`, and their mean; "giou" is
    1 - GIoU of the decoded box and the true one (Rezatofighi et al., CVPR 2019), from 0 to 2. Then
    the mean over positives. Kept from the original: 0 for an image without positives, and that 0
    counts in the batch's mean.
    """
    image, anchor = matches.positive.nonzero(as_tuple=True)
    true_boxes = matches.boxes_xyxy[image, matches.box_index[image, anchor]]  # (P, 4)
    found, positives = deltas[image, anchor], anchors[anchor]
    if settings.box_loss == "giou":
        loss = 1 - paired_giou(decode_boxes(found, positives), true_boxes)
    else:
        loss = F.smooth_l1_loss(
            found, encode_boxes(true_boxes, positives), beta=settings.beta, reduction="none"
        ).mean(dim=1)  # (P, 4) -> (P,)
    n_positive = matches.positive.sum(dim=1).clamp(min=1)
    return deltas.new_zeros(len(deltas)).index_add(0, image, loss) / n_positive
