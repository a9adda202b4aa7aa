"""How samples are made of images: the options, and the paper's augmentation levels (section 4).

Needs the standard library alone: experiments are checked against it before PyTorch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from src.structures import WHOLE, Grey, ShownArea

BoxPoints = Literal["thirds", "corners"]
# How images shrink to the network's input:
#   subsample: every n-th pixel, or bilinear where n is no whole number; the original's way
#   area: each pixel is the mean of the area that it covers
#   auto: the challenge's images as the original does where n is whole, all others by area
Reduction = Literal["subsample", "area", "auto"]


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """How samples are made.

    Attributes:
        img_size: side of the network input, pixels.
        shown: the area of the image that becomes the input.
        augmentation_level: a key of `AUGMENTATION_LEVELS`; for training samples.
        box_points: which points of a box are carried through the crop.
        hflip: mirror every second training sample.
        clip_boxes: cut the boxes of training samples off at the border of the crop.
        grey: how stored values become grey, where they are not plain 8-bit.
        reduction: how images shrink.
        seed: of all augmentations.
    """

    img_size: int
    shown: ShownArea = WHOLE
    augmentation_level: int = 10
    box_points: BoxPoints = "thirds"
    hflip: bool = False
    clip_boxes: bool = False
    grey: Grey = "viewer"
    reduction: Reduction = "auto"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class AugmentationLevel:
    """How strongly a level augments.

    Attributes:
        scale: standard deviation of log2 of the stretch, x and y apart.
        angle: standard deviation of the rotation, degrees.
        shear: standard deviation, degrees.
        gamma: standard deviation of log2 of the exponent.
        salt_and_pepper_p: how often cells of a coarse grid turn black or white.
        blur_p: how often a Gaussian blur is applied.
        blur_sigma: its largest standard deviation, crop pixels.
        noise_p: how often Gaussian noise is added.
        noise_sigma: its largest standard deviation, of the full range.
        eight_bit: whether the crop passes through 8 bits.
    """

    scale: float = 0.0
    angle: float = 0.0
    shear: float = 0.0
    gamma: float = 0.0
    salt_and_pepper_p: float = 0.0
    blur_p: float = 0.0
    blur_sigma: float = 0.0
    noise_p: float = 0.0
    noise_sigma: float = 0.0
    eight_bit: bool = False


def _strong(*, angle: float) -> AugmentationLevel:
    return AugmentationLevel(
        scale=0.15,
        angle=angle,
        shear=4.0,
        gamma=0.25,
        salt_and_pepper_p=0.1,
        blur_p=0.5,
        blur_sigma=2.0,
        noise_p=0.5,
        noise_sigma=0.04,
        eight_bit=True,
    )


AUGMENTATION_LEVELS: dict[int, AugmentationLevel] = {
    1: AugmentationLevel(),  # the shift alone
    10: AugmentationLevel(scale=0.1, angle=5.0, shear=2.5, gamma=0.2),
    11: AugmentationLevel(scale=0.1, angle=0.0, shear=2.5, gamma=0.2),
    15: AugmentationLevel(
        scale=0.15,
        angle=6.0,
        shear=4.0,
        gamma=0.2,
        blur_p=0.25,
        blur_sigma=1.0,
        noise_p=0.25,
        noise_sigma=0.02,
        eight_bit=True,
    ),
    20: _strong(angle=6.0),
    21: _strong(angle=0.0),
}
