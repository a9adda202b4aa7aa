"""Which boxes leave their image, and by how much rounding may put them outside."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Pixels by which rounding puts boxes outside: six decimals of a share of 4,096 are .004 pixels.
MAX_ROUNDING = 0.01

FloatArray = NDArray[np.float64]


def leaves_image(boxes_xywh: FloatArray, sizes: ArrayLike = np.inf) -> NDArray[np.bool_]:
    """Say which boxes leave their image by more than rounding does, or lie outside of it.

    Args:
        boxes_xywh: (M, 4), pixels.
        sizes: (2,) or (M, 2), width and height of the images, pixels; not checked by default.

    Returns:
        (M,).
    """
    limits = np.asarray(sizes, dtype=np.float64)
    starts, ends = boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]
    passes = (starts < -MAX_ROUNDING) | (ends > limits + MAX_ROUNDING)
    return np.asarray((passes | (ends <= 0) | (starts >= limits)).any(axis=1))


def clip_boxes(boxes_xywh: FloatArray, sizes: ArrayLike = np.inf) -> FloatArray:
    """Cut boxes off at the borders of their image; sides that lie inside stay as they are.

    Args:
        boxes_xywh, sizes: as for `leaves_image`.

    Returns:
        (M, 4) xywh, pixels.
    """
    limits = np.asarray(sizes, dtype=np.float64)
    starts, ends = boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]
    first = np.maximum(starts, 0)
    clipped = np.concatenate([first, np.minimum(ends, limits) - first], axis=1)
    is_inside = (starts >= 0) & (ends <= limits)
    return np.where(np.tile(is_inside, 2), boxes_xywh, clipped)
