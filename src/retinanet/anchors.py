"""Anchors: the reference boxes at every position of P2..P7 (paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

RATIOS = (0.5, 1.0, 2.0)  # height / width
SCALES = (2 ** (0 / 3), 2 ** (1 / 3), 2 ** (2 / 3))
BASE_SIZE_IN_STRIDES = 4  # an anchor of ratio 1, scale 1 is 4 strides wide
N_ANCHORS_PER_POSITION = len(RATIOS) * len(SCALES)


def make_anchors(image_size: tuple[int, int], levels: tuple[int, ...]) -> Tensor:
    """Lay the anchors of all levels over an image.

    Args:
        image_size: height and width of the network input, pixels.
        levels: pyramid levels; level l has stride 2^l.

    Returns:
        (A, 4) float32 xyxy, pixels of the network input; by level, row, column, ratio, scale,
        the scale changing fastest. Anchors may leave the image.
    """
    return torch.cat([_level_anchors(image_size, 2**level) for level in levels])


def count_anchors(image_size: tuple[int, int], level: int) -> int:
    """Return how many anchors `level` has on an image of `image_size` (height, width)."""
    rows, columns = grid_size(image_size, 2**level)
    return rows * columns * N_ANCHORS_PER_POSITION


def grid_size(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return rows and columns of the positions of one level on an image (height, width)."""
    height, width = image_size
    return -(-height // stride), -(-width // stride)


def _level_anchors(image_size: tuple[int, int], stride: int) -> Tensor:
    rows, columns = grid_size(image_size, stride)
    center_y = (torch.arange(rows, dtype=torch.float64) + 0.5) * stride
    center_x = (torch.arange(columns, dtype=torch.float64) + 0.5) * stride
    grid_y, grid_x = torch.meshgrid(center_y, center_x, indexing="ij")
    centers = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1)  # (rows, columns, 4)
    boxes = centers[:, :, None] + _shapes_at_origin(stride)  # (rows, columns, 9, 4)
    return boxes.reshape(-1, 4).float()


def _shapes_at_origin(stride: int) -> Tensor:
    """Return the 9 shapes around (0, 0): (9, 4) xyxy; equal area for equal scale."""
    half_sizes = []
    for ratio in RATIOS:
        for scale in SCALES:
            side = BASE_SIZE_IN_STRIDES * stride * scale
            half_sizes.append([side * ratio**-0.5 / 2, side * ratio**0.5 / 2])
    half = torch.tensor(half_sizes, dtype=torch.float64)
    return torch.cat([-half, half], dim=1)
