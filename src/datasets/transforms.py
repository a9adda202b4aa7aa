"""One affine map for an image and its boxes (paper, section 4).

A matrix leads from the pixels of the crop, the network's input, to those of the source. The image
is warped through it, the boxes go the other way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from src.datasets.sample_options import BoxPoints
from src.radiographs.pixels import Pixels
from src.structures import WHOLE, ShownArea

FloatArray = NDArray[np.float64]

# Where the points lie on a box, as shares of its width and height.
_THIRD, _TWO_THIRDS = 1 / 3, 2 / 3
BOX_POINTS: dict[BoxPoints, FloatArray] = {
    "thirds": np.array(
        [(x, y) for x in (0, 1) for y in (_THIRD, _TWO_THIRDS)]
        + [(x, y) for x in (_THIRD, _TWO_THIRDS) for y in (0, 1)]
    ),
    "corners": np.array([(x, y) for x in (0.0, 1.0) for y in (0.0, 1.0)]),
}


@dataclass(frozen=True)
class Crop:
    """Which part of a source image becomes the square network input, and how it is bent.

    Attributes:
        size: side of the crop, pixels.
        center_xy: the source pixel that comes to the crop's centre.
        scale_xy: crop pixels per source pixel.
        angle: of rotation, degrees.
        shear: degrees.
        hflip: mirror left and right.
    """

    size: int
    center_xy: tuple[float, float]
    scale_xy: tuple[float, float]
    angle: float = 0.0
    shear: float = 0.0
    hflip: bool = False

    def matrix(self) -> FloatArray:
        """Return the (3, 3) matrix from crop pixels to source pixels.

        Rotation and shear as scikit-image 0.26 composes them. Differs from the original: the
        releases of 2018 sheared by the angle's sine and cosine instead of its tangent, at most
        0.62 px away at 4 degrees; and its flips never happened.
        """
        angle, tangent = math.radians(self.angle), math.tan(math.radians(self.shear))
        cos, sin = math.cos(angle), math.sin(angle)
        (center_x, center_y), (scale_x, scale_y) = self.center_xy, self.scale_xy
        # From the crop's centre: turn and shear, then stretch, then go to the source's centre.
        xx, xy = cos / scale_x, -(tangent * cos + sin) / scale_x
        yx, yy = sin / scale_y, (cos - sin * tangent) / scale_y
        left = center_x - (xx + xy) * self.size / 2
        top = center_y - (yx + yy) * self.size / 2
        if self.hflip:  # column c of the crop is column size - 1 - c
            left, top = left + xx * (self.size - 1), top + yx * (self.size - 1)
            xx, yx = -xx, -yx
        return np.array([[xx, xy, left], [yx, yy, top], [0.0, 0.0, 1.0]])


def central_crop(source_size: tuple[int, int], size: int, shown: ShownArea = WHOLE) -> Crop:
    """Return the crop that shows the area around an image's middle, squeezed into a square.

    Args:
        source_size: height and width of the source image, pixels.
        size: side of the crop, pixels.
        shown: the area; by default the whole image.
    """
    height, width = source_size
    shown_height, shown_width = shown.size(source_size)
    return Crop(size, (width / 2, height / 2), (size / shown_width, size / shown_height))


def warp_image(image: Pixels, crop: Crop) -> Pixels:
    """Cut the crop out of an image: bilinear, 0 outside.

    Kept from the original: no smoothing before the reduction; at 1024 -> 512 without augmentation
    it takes every second pixel.

    Args:
        image: (H, W).

    Returns:
        (size, size) of the same type; uint8 is what float32 gives, rounded.
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    side = (crop.size, crop.size)
    warped: Pixels = cv2.warpAffine(image, crop.matrix()[:2], side, flags=flags)
    return warped


def reduce_by_area(image: Pixels, crop: Crop) -> tuple[Pixels, Crop]:
    """Shrink an image to the scale of a crop, so that cutting it out leaves out no pixel.

    Each new pixel is the mean of the area that it covers. Axes that the crop enlarges stay.

    Args:
        image: (H, W).

    Returns:
        The smaller image, of the same type, and the crop that shows the same part of it: pixels lie
        where `warp_boxes` carries boxes by the old crop.
    """
    if min(crop.scale_xy) >= 1:
        return image, crop
    height, width = image.shape
    n_columns, n_rows = (
        max(1, round(side * min(scale, 1)))
        for side, scale in zip((width, height), crop.scale_xy, strict=True)
    )
    smaller: Pixels = cv2.resize(image, (n_columns, n_rows), interpolation=cv2.INTER_AREA)
    (x, y), (scale_x, scale_y) = crop.center_xy, crop.scale_xy
    left_x, left_y = n_columns / width, n_rows / height  # pixels that are left of each one
    x, y = x * left_x, y * left_y
    scale_xy = scale_x / left_x, scale_y / left_y
    # `warp_image` takes the value at a pixel's upper left corner for the pixel. Where the crop is
    # bent its middle is elsewhere: go there.
    bent = replace(crop, center_xy=(x, y), scale_xy=scale_xy, hflip=False).matrix()
    to_middle = (bent[:2, :2].sum(axis=1) - 1) / 2
    center_xy = x + float(to_middle[0]), y + float(to_middle[1])
    return smaller, replace(crop, center_xy=center_xy, scale_xy=scale_xy)


def take_every_nth(image: Pixels, crop: Crop) -> Pixels | None:
    """Cut out a crop that is made of whole pixels of the image: a view, without arithmetic.

    Returns:
        (size, size), exactly what `warp_image` gives; None if the crop needs more than that.
    """
    (step_x, shear_x, left), (shear_y, step_y, top) = crop.matrix()[:2].tolist()
    if shear_x or shear_y or not all(x.is_integer() for x in (step_x, step_y, left, top)):
        return None
    if min(step_x, step_y, left, top) < 0:
        return None
    rows = slice(int(top), int(top + crop.size * step_y), int(step_y))
    columns = slice(int(left), int(left + crop.size * step_x), int(step_x))
    part = image[rows, columns]
    return part if part.shape == (crop.size, crop.size) else None


def warp_boxes(boxes_xywh: FloatArray, crop: Crop, points: BoxPoints = "thirds") -> FloatArray:
    """Carry boxes from the source into the crop.

    Points of each box are carried over, and their hull is the new box. By thirds, the paper's way,
    it stays tight under small rotations, where corners make it swell.

    Args:
        boxes_xywh: (M, 4) source pixels.
        points: which points stand for a box.

    Returns:
        (M, 4) xyxy, crop pixels, not clipped.
    """
    if len(boxes_xywh) == 0:
        return np.zeros((0, 4))
    corner, size = boxes_xywh[:, None, :2], boxes_xywh[:, None, 2:]
    source = corner + size * BOX_POINTS[points]  # (M, P, 2)
    to_source = (replace(crop, hflip=False) if crop.hflip else crop).matrix()
    carried = (source - to_source[:2, 2]) @ np.linalg.inv(to_source[:2, :2]).T
    if crop.hflip:  # edges, other than pixels, mirror to size - x
        carried[..., 0] = crop.size - carried[..., 0]
    return np.concatenate([carried.min(axis=1), carried.max(axis=1)], axis=1)


def drop_boxes_outside(boxes_xyxy: FloatArray, size: int) -> FloatArray:
    """Leave out boxes that share no pixel with the crop.

    Kept from the original: boxes that reach over the border stay as they are.
    """
    inside = (boxes_xyxy[:, :2] < size) & (boxes_xyxy[:, 2:] > 0)
    return boxes_xyxy[inside.all(axis=1)]
