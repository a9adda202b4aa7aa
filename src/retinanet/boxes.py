"""Geometry of boxes: overlap, and the code in which the network states them."""

from __future__ import annotations

import torch
from torch import Tensor

SHIFT_STD, STRETCH_STD = 0.1, 0.2  # dx, dy and dw, dh are divided by these; the original release


def box_iou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> Tensor:
    """Compute the overlap of every box with every other one.

    Args:
        boxes_xyxy: (..., N, 4).
        others_xyxy: (..., M, 4), leading dimensions that broadcast with those of `boxes_xyxy`.

    Returns:
        (..., N, M) intersection over union; 0 where a box has no area.
    """
    top_left = torch.maximum(boxes_xyxy[..., :, None, :2], others_xyxy[..., None, :, :2])
    bottom_right = torch.minimum(boxes_xyxy[..., :, None, 2:], others_xyxy[..., None, :, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    union = _area(boxes_xyxy)[..., :, None] + _area(others_xyxy)[..., None, :] - intersection
    return intersection / union.clamp(min=1e-8)


def paired_giou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> Tensor:
    """Compute the generalized IoU of each box with its partner: (N, 4), (N, 4) -> (N,).

    IoU less the share of the smallest box around both that neither covers (Rezatofighi et al.,
    CVPR 2019): from 1 for equal boxes towards -1 for distant ones, with a slope everywhere. Boxes
    have an area.
    """
    inner = torch.minimum(boxes_xyxy[:, 2:], others_xyxy[:, 2:]) - torch.maximum(
        boxes_xyxy[:, :2], others_xyxy[:, :2]
    )
    outer = torch.maximum(boxes_xyxy[:, 2:], others_xyxy[:, 2:]) - torch.minimum(
        boxes_xyxy[:, :2], others_xyxy[:, :2]
    )
    intersection, around = inner.clamp(min=0).prod(dim=1), outer.prod(dim=1)
    union = _area(boxes_xyxy) + _area(others_xyxy) - intersection
    return intersection / union + union / around - 1


def encode_boxes(boxes_xyxy: Tensor, anchors: Tensor) -> Tensor:
    """State boxes relative to anchors; the inverse of `decode_boxes`.

    Args:
        boxes_xyxy: (..., 4) of positive width and height.
        anchors: (..., 4) xyxy, same pixels.

    Returns:
        (..., 4) dx, dy, dw, dh.
    """
    box_center, box_size = _center_size(boxes_xyxy)
    anchor_center, anchor_size = _center_size(anchors)
    shift = (box_center - anchor_center) / anchor_size
    stretch = torch.log(box_size / anchor_size)
    return torch.cat([shift / SHIFT_STD, stretch / STRETCH_STD], dim=-1)


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Turn regression outputs into boxes; the inverse of `encode_boxes`.

    Args:
        deltas: (..., 4) dx, dy, dw, dh, relative to the anchor.
        anchors: (..., 4) xyxy, pixels of the network input.

    Returns:
        (..., 4) xyxy, same pixels, not clipped.
    """
    anchor_center, anchor_size = _center_size(anchors)
    center = anchor_center + deltas[..., :2] * SHIFT_STD * anchor_size
    half_size = torch.exp(deltas[..., 2:] * STRETCH_STD) * anchor_size / 2
    return torch.cat([center - half_size, center + half_size], dim=-1)


def clip_boxes(boxes_xyxy: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Cut boxes off at the image's border.

    Differs from the original: all four coordinates are held inside, so a box wholly outside comes
    out without area instead of inverted.

    Args:
        boxes_xyxy: (..., 4).
        image_size: height and width, same pixels.

    Returns:
        (..., 4) xyxy with 0 <= x <= width and 0 <= y <= height.
    """
    height, width = image_size
    x, y = boxes_xyxy[..., 0::2].clamp(0, width), boxes_xyxy[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).flatten(-2)  # (..., 2, 2) -> (..., 4)


def vote_boxes(
    boxes_xyxy: Tensor, scores: Tensor, image_size: tuple[int, int], voting_iou: float
) -> Tensor:
    """Move each box to the mean of the boxes that overlap it by more, itself included.

    The neighbours of a box that survives suppression saw the same lesion: their mean, weighted by
    score, lies closer to it than one of them (box voting, Gidaris and Komodakis, ICCV 2015).

    Args:
        boxes_xyxy: (..., N, 4) that have an area and lie in the image.
        scores: (..., N); boxes of score 0 have no vote.
        image_size: height and width, same pixels.
        voting_iou: from 0 to 1; 1 moves nothing.

    Returns:
        (..., N, 4) xyxy inside the image, in the same order.
    """
    if voting_iou >= 1:
        return boxes_xyxy
    votes = (box_iou(boxes_xyxy, boxes_xyxy) > voting_iou) * scores[..., None, :]  # (..., N, N)
    total = votes.sum(dim=-1).clamp(min=torch.finfo(scores.dtype).tiny)
    # No matrix product: on a GPU it may round to 10 bits, half a pixel.
    corners = [(votes * corner[..., None, :]).sum(dim=-1) for corner in boxes_xyxy.unbind(dim=-1)]
    means = torch.stack(corners, dim=-1) / total[..., None]
    return clip_boxes(means, image_size)  # a mean may be rounded out of it


def _area(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0).prod(dim=-1)


def _center_size(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    return boxes_xyxy[..., :2] + size / 2, size
