"""The paper's augmentation (section 4): what is drawn at random for a training sample.

Every draw comes from the generator that is passed in, which the data set keys on
(seed, epoch, index): a sample does not depend on worker processes or on other samples.
"""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from src.datasets.sample_options import AugmentationLevel
from src.datasets.transforms import Crop, central_crop
from src.radiographs.pixels import FloatImage, Pixels, as_float
from src.structures import WHITE, WHOLE, ShownArea

# Each way, at every level, as a share of the image's shorter side: the original release's 32 source
# pixels of 1024.
MAX_CENTER_SHIFT = 32 / 1024

SALT_AND_PEPPER_SHARE = 0.01  # of the cells
SALT_AND_PEPPER_GRID = (0.1, 0.2)  # cells per pixel along each side

N_NOISE_STARTS = 2**20  # places where a sample's noise may begin in the table
NOISE_SEED = 0

LEVELS = np.arange(WHITE + 1) / WHITE  # of 8 bits


def draw_crop(
    source_size: tuple[int, int],
    size: int,
    level: AugmentationLevel,
    rng: np.random.Generator,
    *,
    hflip: bool = False,
    shown: ShownArea = WHOLE,
) -> Crop:
    """Draw the part of an image that is shown, and how it is bent.

    Args:
        source_size: height and width of the source image, pixels.
        size: side of the crop, pixels.
        hflip: mirror every second sample. Differs from the original, which names flips in its
            table and never makes them; off by default.
        shown: the area around the image's middle that a sample without changes shows.
    """
    whole = central_crop(source_size, size, shown)
    farthest = MAX_CENTER_SHIFT * min(source_size)
    shift_x, shift_y = rng.uniform(-farthest, farthest, size=2).tolist()
    stretch_x, stretch_y = np.exp2(rng.normal(0.0, level.scale, size=2)).tolist()
    return Crop(
        size=size,
        center_xy=(whole.center_xy[0] + shift_x, whole.center_xy[1] + shift_y),
        scale_xy=(whole.scale_xy[0] * stretch_x, whole.scale_xy[1] * stretch_y),
        angle=rng.normal(0.0, level.angle),
        shear=rng.normal(0.0, level.shear),
        hflip=hflip and rng.random() < 0.5,
    )


def augment_pixels(image: Pixels, level: AugmentationLevel, rng: np.random.Generator) -> Pixels:
    """Change the grey values of a crop.

    Differs from the original: a level that passes through 8 bits rounds the crop to them before
    gamma as well, at most half a grey level, so that gamma is a table. With the cut to whole levels
    behind gamma, the mean stays the original's to .03 levels.

    Args:
        image: (H, W).

    Returns:
        A new (H, W): uint8 at the levels that pass through 8 bits, else float32 in [0, 1].
    """
    gamma = np.exp2(rng.normal(0.0, level.gamma))
    changed = _bend_8_bits(_to_8_bits(image), gamma) if level.eight_bit else _bend(image, gamma)
    if rng.random() < level.salt_and_pepper_p:
        _add_salt_and_pepper(changed, rng)
    if rng.random() < level.blur_p:
        changed = _blur(changed, rng.uniform(0.0, level.blur_sigma))
    if rng.random() < level.noise_p:
        sigma, noise = rng.uniform(0.0, level.noise_sigma), _draw_noise(changed.shape, rng)
        if level.eight_bit:  # adds, clips and rounds
            return np.asarray(
                cv2.addWeighted(changed, WHITE, noise, sigma * WHITE, 0.0, dtype=cv2.CV_8U)
            )
        return np.asarray(cv2.scaleAdd(noise, sigma, changed))
    return _to_8_bits(changed) if level.eight_bit else changed


def _bend(image: Pixels, gamma: float) -> FloatImage:
    return np.power(as_float(image), np.float32(gamma), dtype=np.float32)


def _bend_8_bits(image: NDArray[np.uint8], gamma: float) -> FloatImage:
    """Raise value / 255 to a power, and cut to whole grey levels."""
    levels = np.floor(LEVELS**gamma * WHITE)
    return np.asarray(cv2.LUT(image, (levels / WHITE).astype(np.float32)))


def _to_8_bits(image: Pixels) -> NDArray[np.uint8]:
    """Round values in [0, 1] to the nearest of 256 grey levels."""
    if image.dtype == np.uint8:
        return np.asarray(image, dtype=np.uint8)
    return np.asarray(cv2.convertScaleAbs(image, alpha=WHITE), dtype=np.uint8)


def _add_salt_and_pepper(image: FloatImage, rng: np.random.Generator) -> None:
    """Turn about 1 % of the cells of a coarse grid to values near black or white, in place."""
    height, width = image.shape
    share = rng.uniform(*SALT_AND_PEPPER_GRID)
    cells = np.full((max(1, round(height * share)), max(1, round(width * share))), np.nan)
    hit = rng.random(cells.shape) < SALT_AND_PEPPER_SHARE
    cells[hit] = rng.beta(0.5, 0.5, size=np.count_nonzero(hit))  # mostly near 0 or 1
    grain = cv2.resize(cells.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    np.copyto(image, grain, where=~np.isnan(grain))


def _blur(image: FloatImage, sigma: float) -> FloatImage:
    if sigma < 1e-3:  # no visible effect, and OpenCV takes 0 as "choose for me"
        return image
    blurred = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.float32)


def _draw_noise(shape: tuple[int, ...], rng: np.random.Generator) -> FloatImage:
    """Take Gaussian numbers of deviation 1: a stretch of the table from a random start."""
    n_pixels = math.prod(shape)
    start = rng.integers(N_NOISE_STARTS)
    return _noise_table(n_pixels)[start : start + n_pixels].reshape(shape)


@cache
def _noise_table(n_pixels: int) -> FloatImage:
    """Draw Gaussian numbers once for images of a size: drawing takes 20 times as long as adding."""
    rng = np.random.default_rng(NOISE_SEED)
    return rng.standard_normal(N_NOISE_STARTS + n_pixels, dtype=np.float32)
