"""One chest's proportions and pose, and the brushes that draw it.

Shapes are given in pixels of an untilted 1024 x 1024 image, as distances from the midline, and
drawn at half that size.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

Map = np.ndarray[Any, np.dtype[np.float32]]  # (512, 512)
Points = np.ndarray[Any, np.dtype[np.float64]]  # (N, 2) x, y
Box = tuple[float, float, float, float]  # x, y, width, height

SIZE = 1024  # of the challenge's images
SCALE = 0.5  # anatomy is drawn at 512 x 512, noise is added at full size
MIDLINE = SIZE / 2


class Anatomy:
    """The proportions and the pose of one chest, drawn at random, and its brushes."""

    def __init__(self, rng: np.random.Generator, *, portable: bool, cause: str | None) -> None:
        """Choose the proportions.

        Args:
            rng: source of every choice.
            portable: a bedside (AP) film: rotated more, a wider heart, a shorter breath.
            cause: one of ABNORMAL_CAUSES or None.
        """
        hyperinflated = cause == "hyperinflation"
        self.girth = rng.uniform(0.88, 1.25) - 0.08 * hyperinflated
        self.lung_width = rng.normal(1.0, 0.03) + 0.04 * hyperinflated
        self.breath = rng.normal(0.94 if portable else 1.0, 0.04)
        self.dome = 0.12 if hyperinflated else rng.uniform(0.8, 1.15)
        self.heart = rng.normal(1.05 if portable else 0.97, 0.04)
        if cause == "cardiomegaly":
            self.heart = rng.uniform(1.4, 1.6)
        elif hyperinflated:
            self.heart, self.breath = 0.8, rng.uniform(1.08, 1.14)
        self.curve = rng.uniform(38, 60) * rng.choice([-1, 1]) if cause == "scoliosis" else 0.0
        angle = np.deg2rad(rng.normal(0, 3.0 if portable else 1.3))
        zoom = rng.normal(1.0, 0.05) - 0.04 * hyperinflated
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = np.array([MIDLINE, SIZE / 2])
        self._turn, self._shift = turn, centre + rng.normal((0, 14), (20, 28)) - turn @ centre

    def lung_y(self, y: float) -> float:
        """Stretch a height below the apex of the lungs with the breath."""
        return 130 + (y - 130) * self.breath

    def midline(self, y: float) -> float:
        """Return the x of the spine at height y; an S in scoliosis."""
        return MIDLINE + self.curve * float(np.sin((y - 80) / 720 * 2 * np.pi))

    def pixels(self, points: ArrayLike) -> np.ndarray:
        """Place anatomy coordinates (N, 2) in the half-size image."""
        return (np.asarray(points, dtype=np.float64) @ self._turn.T + self._shift) * SCALE

    def fill(self, points: ArrayLike, *, blur: float = 1.0, smooth: bool = True) -> Map:
        """Draw a closed shape: (512, 512) in 0..1."""
        corners = np.asarray(points, dtype=np.float64)
        for _ in range(4 if smooth else 0):  # Chaikin: cut the corners
            after = np.roll(corners, -1, axis=0)
            corners = np.stack([0.75 * corners + 0.25 * after, 0.25 * corners + 0.75 * after], 1)
            corners = corners.reshape(-1, 2)
        canvas = np.zeros((int(SIZE * SCALE),) * 2, np.uint8)
        fixed = np.round(self.pixels(corners) * 16).astype(np.int32)  # 4 fractional bits
        cv2.fillPoly(canvas, [fixed], 255, cv2.LINE_AA, 4)
        return soften(np.float32(1 / 255) * canvas.astype(np.float32), blur)

    def stroke(self, lines: Sequence[tuple[Any, float]], *, blur: float = 0.6) -> Map:
        """Draw open lines (points, width in anatomy pixels) over each other: (512, 512) in 0..1."""
        canvas = np.zeros((int(SIZE * SCALE),) * 2, np.uint8)
        for points, width in lines:
            fixed = np.round(self.pixels(points) * 16).astype(np.int32)
            thickness = max(1, round(width * SCALE))
            cv2.polylines(canvas, [fixed], False, 255, thickness, cv2.LINE_AA, 4)
        return soften(np.float32(1 / 255) * canvas.astype(np.float32), blur)

    def ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], tilt: float
    ) -> Points:
        """Return the outline (40, 2) of an ellipse turned by `tilt` radians."""
        t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        x, y = radii[0] * np.cos(t), radii[1] * np.sin(t)
        turned = np.stack(
            [x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)]
        )
        return turned.T + centre


def soften(image: Map, sigma: float) -> Map:
    """Blur with a Gaussian of `sigma` half-size pixels; large ones on a reduced copy, for speed."""
    if sigma > 6:
        small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / 4)
        return np.asarray(cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))


def fractal_noise(rng: np.random.Generator, cells: Sequence[int]) -> Map:
    """Return (512, 512) smooth noise of about unit variance: one octave for each cell count."""
    total = np.zeros((int(SIZE * SCALE),) * 2, np.float32)
    for n in cells:
        octave = rng.standard_normal((n, n), dtype=np.float32)
        total += cv2.resize(octave, total.shape, interpolation=cv2.INTER_CUBIC)
    return total / np.float32(0.7 * np.sqrt(len(cells)))  # interpolation takes some variance away
