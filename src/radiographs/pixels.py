"""Grey values between the files and the network: as stored while that is exact, else in [0, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.structures import WHITE

MAX_PIXELS = 50_000_000  # the largest detectors have half of that; more is a broken header
# Nearly everything is black or white where fewer than this share of the pixels lies between.
MIN_BETWEEN = 0.05
NEARLY_BLACK, NEARLY_WHITE = 0.02, 0.98

FloatImage = NDArray[np.float32]  # (H, W) in [0, 1]
Pixels = NDArray[np.uint8] | FloatImage  # (H, W); uint8 of 0 to 255 stands for value / 255


def as_float(pixels: Pixels) -> FloatImage:
    """Return grey values in [0, 1]: a float image as it is, 8 bits divided by 255."""
    if pixels.dtype == np.uint8:
        return np.divide(pixels, np.float32(WHITE), dtype=np.float32)
    return np.asarray(pixels, dtype=np.float32)
