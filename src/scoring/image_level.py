"""How well images with an opacity are told from those without, for draws of the images.

A point of the curves is a score: the images with this score or a higher one are called positive, so
that images of equal score are called together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from src.metric import BoolArray, FloatArray, IntArray
from src.scoring.bootstrap import ratio
from src.scoring.calibration import calibration_errors


@dataclass(frozen=True, eq=False)
class DrawnImages:
    """Images in several draws, with one score each.

    Attributes:
        scores: (I,) probability that an image shows an opacity.
        has_opacity: (I,) whether it does.
        weights: (D, I) how often each image is in each draw.
    """

    scores: FloatArray
    has_opacity: BoolArray
    weights: IntArray

    @cached_property
    def called(self) -> tuple[IntArray, IntArray]:
        """Count the images with and without opacity down to each of the G scores, (D, G) both."""
        order = np.argsort(-self.scores, kind="stable")
        is_last = np.diff(self.scores[order], append=-np.inf) != 0  # of the images of its score
        weights = self.weights[:, order]
        n_positive = (weights * self.has_opacity[order]).cumsum(axis=1)[:, is_last]
        return n_positive, weights.cumsum(axis=1)[:, is_last] - n_positive

    @cached_property
    def n_positive(self) -> IntArray:
        """Return the images with an opacity in each draw, (D,)."""
        return self.weights @ self.has_opacity

    @cached_property
    def n_negative(self) -> IntArray:
        """Return the images without one in each draw, (D,)."""
        return self.weights @ ~self.has_opacity


def auroc(drawn: DrawnImages) -> FloatArray:
    """Compute the area under the ROC curve.

    It is the probability that an image with an opacity has a higher score than one without; equal
    scores count one half.

    Returns:
        (D,) in [0, 1]; NaN in draws without positive or without negative images.
    """
    n_positive, n_negative = drawn.called
    new = np.diff(n_positive, axis=1, prepend=0)
    lower = drawn.n_negative[:, None] - n_negative + np.diff(n_negative, axis=1, prepend=0) / 2
    return ratio((new * lower).sum(axis=1), drawn.n_positive * drawn.n_negative)


def roc_curve(drawn: DrawnImages) -> tuple[FloatArray, FloatArray]:
    """Compute the points of the ROC curve: the origin, and one for each of the G scores.

    Straight lines between them enclose the area that `auroc` computes.

    Returns:
        Share of the images without opacity that are called positive, and of those with one, the
        sensitivity, (D, 1 + G) both; NaN in draws without such images.
    """
    n_positive, n_negative = (np.pad(called, ((0, 0), (1, 0))) for called in drawn.called)
    return ratio(n_negative, drawn.n_negative[:, None]), ratio(
        n_positive, drawn.n_positive[:, None]
    )


def image_average_precision(drawn: DrawnImages) -> FloatArray:
    """Compute the average precision: the mean of precision over recall, in steps.

    Returns:
        (D,) in [0, 1]; NaN in draws without positive or without negative images.
    """
    n_positive, n_negative = drawn.called
    new = np.diff(n_positive, axis=1, prepend=0)
    precision = n_positive / np.maximum(n_positive + n_negative, 1)
    return _where_both(drawn, ratio((new * precision).sum(axis=1), drawn.n_positive))


def sensitivity_at_specificity(drawn: DrawnImages, specificity: float) -> FloatArray:
    """Compute the best sensitivity of a score with the specificity or more, not interpolated.

    Returns:
        (D,) in [0, 1]; NaN in draws without positive or without negative images.
    """
    n_positive, n_negative = drawn.called
    n_all = drawn.n_negative[:, None]
    may_count = (n_all - n_negative) / np.maximum(n_all, 1) >= specificity
    n_called = np.where(may_count, n_positive, 0).max(axis=1, initial=0)
    return _where_both(drawn, ratio(n_called, drawn.n_positive))


def calibration_error(drawn: DrawnImages) -> FloatArray:
    """Compute the expected calibration error over 10 bins, (D,); NaN in draws without images."""
    return calibration_errors(drawn.scores, drawn.has_opacity, drawn.weights)


def _where_both(drawn: DrawnImages, values: FloatArray) -> FloatArray:
    """Put NaN where a draw has no positive or no negative image."""
    return np.where((drawn.n_positive > 0) & (drawn.n_negative > 0), values, np.nan)
