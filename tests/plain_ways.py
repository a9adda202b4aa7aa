"""The plain ways to read and to augment an image: slow, obvious, with the usual libraries.

The tests hold the fast ways to them, the benchmark of the data path measures itself against them.
"""

import numpy as np
import pydicom
from skimage.filters import gaussian
from skimage.transform import AffineTransform, warp

from src.datasets.augmentations import SALT_AND_PEPPER_GRID, SALT_AND_PEPPER_SHARE, draw_crop


def read_dicom(path, plugin=""):
    """Read the stored values, (H, W) uint8, with pydicom's first decoder or the one named."""
    return pydicom.pixels.pixel_array(path, decoding_plugin=plugin)


def warp_image(image, crop):
    """Cut the crop out of an image of floats."""
    shape = (crop.size, crop.size)
    return warp(image, AffineTransform(crop.matrix()), order=1, cval=0, output_shape=shape)


def augment_pixels(image, level, rng):
    """Change grey values in [0, 1] at a level that passes through 8 bits; returns whole levels."""
    image = image ** np.exp2(rng.normal(0, level.gamma))
    image = np.floor(image * 255) / 255
    if rng.random() < level.salt_and_pepper_p:
        image = add_salt_and_pepper(image, rng)
    if rng.random() < level.blur_p:
        image = gaussian(image, rng.uniform(0, level.blur_sigma), mode="mirror", truncate=4)
    if rng.random() < level.noise_p:
        image = image + rng.normal(0, rng.uniform(0, level.noise_sigma), image.shape)
    return np.rint(image.clip(0, 1) * 255)


def add_salt_and_pepper(image, rng):
    height, width = image.shape
    share = rng.uniform(*SALT_AND_PEPPER_GRID)
    n_rows, n_columns = round(height * share), round(width * share)
    hit = rng.random((n_rows, n_columns)) < SALT_AND_PEPPER_SHARE
    grain = rng.beta(0.5, 0.5, size=hit.shape)
    rows = np.arange(height) * n_rows // height
    columns = np.arange(width) * n_columns // width
    cells = np.ix_(rows, columns)
    return np.where(hit[cells], grain[cells], image)


def make_sample(pixels, size, level, rng):
    """Make the augmented crop of stored pixels, (size, size) of whole levels from 0 to 255."""
    crop = draw_crop(pixels.shape, size, level, rng)
    return augment_pixels(warp_image(pixels / 255, crop), level, rng)
