"""Anchors: the reference boxes at every position of P2..P7 (paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from src.retinanet.settings import PAPER_ANCHORS, AnchorShapes


def make_anchors(
    image_size: tuple[int, int], levels: tuple[int, ...], shapes: AnchorShapes = PAPER_ANCHORS
) -> Tensor:
    """Lay the anchors of all levels over an image.

    Args:
        image_size: height and width of the network input, pixels.
        levels: pyramid levels; level l has stride 2^l.
        shapes: of the anchors at each position.

    Returns:
        (A, 4) float32 xyxy, pixels of the network input; by level, row, column, ratio, scale,
        the scale changing fastest. Anchors may leave the image.
    """
    return torch.cat([_level_anchors(image_size, 2**level, shapes) for level in levels])


def count_anchors(
    image_size: tuple[int, int], level: int, shapes: AnchorShapes = PAPER_ANCHORS
) -> int:
    """Return how many anchors `level` has on an image of `image_size` (height, width)."""
    rows, columns = grid_size(image_size, 2**level)
    return rows * columns * shapes.n_per_position


def grid_size(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return rows and columns of the positions of one level on an image (height, width)."""
    height, width = image_size
    return -(-height // stride), -(-width // stride)


def _level_anchors(image_size: tuple[int, int], stride: int, shapes: AnchorShapes) -> Tensor:
    rows, columns = grid_size(image_size, stride)
    center_y = (torch.arange(rows, dtype=torch.float64) + 0.5) * stride
    center_x = (torch.arange(columns, dtype=torch.float64) + 0.5) * stride
    grid_y, grid_x = torch.meshgrid(center_y, center_x, indexing="ij")
    centers = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1)  # (rows, columns, 4)
    boxes = centers[:, :, None] + _shapes_at_origin(stride, shapes)  # (rows, columns, 9, 4)
    return boxes.reshape(-1, 4).float()


def _shapes_at_origin(stride: int, shapes: AnchorShapes) -> Tensor:
    """Return the 9 shapes around (0, 0): (9, 4) xyxy; equal area for equal scale."""
    half_sizes = []
    for ratio in shapes.ratios:
        for scale in shapes.scales:
            side = shapes.size * stride * scale
            half_sizes.append([side * ratio**-0.5 / 2, side * ratio**0.5 / 2])
    half = torch.tensor(half_sizes, dtype=torch.float64)
    return torch.cat([-half, half], dim=1)
