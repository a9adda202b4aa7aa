"""How far the global head can be trusted: its confusions, and how often its probabilities hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from src.metric import BoolArray, FloatArray, IntArray
from src.scoring.bootstrap import ratio
from src.structures import CLASS_NAMES

N_CLASSES = len(CLASS_NAMES)
N_BINS = 10  # of probability


def count_confusions(true_categories: IntArray, class_probs: FloatArray) -> IntArray:
    """Count the images of each true class that are taken for each class.

    Args:
        true_categories: (I,) in [0, 3).
        class_probs: (I, 3); the greatest decides, of equal ones the first.

    Returns:
        (3, 3), a row for each true class.
    """
    counts = np.zeros((N_CLASSES, N_CLASSES), dtype=np.int64)
    np.add.at(counts, (true_categories, class_probs.argmax(axis=1)), 1)
    return counts


class Reliability(NamedTuple):
    """How often something comes true, by the probability that was given to it.

    Attributes:
        probs: (B,) mean probability in each bin, NaN in empty ones.
        shares: (B,) share of cases in each bin that came true, NaN in empty ones.
        counts: (B,) cases in each bin.
    """

    probs: FloatArray
    shares: FloatArray
    counts: IntArray

    @property
    def error(self) -> float:
        """Return the expected calibration error: mean |share - probability| over the cases."""
        filled = self.counts > 0
        gaps = np.abs(self.shares[filled] - self.probs[filled])
        return float(np.average(gaps, weights=self.counts[filled]))


def reliability(probs: FloatArray, came_true: BoolArray, n_bins: int = N_BINS) -> Reliability:
    """Sort cases into bins of equal width by their probability.

    Args:
        probs: (N,) in [0, 1], N at least 1.
        came_true: (N,).
        n_bins: a bin holds its lower edge, the last one 1 as well.
    """
    bins = _bins(probs, n_bins)
    counts = np.bincount(bins, minlength=n_bins)
    sums = (np.bincount(bins, weights=values, minlength=n_bins) for values in (probs, came_true))
    mean_prob, share = (
        np.divide(total, counts, out=np.full(n_bins, np.nan), where=counts > 0) for total in sums
    )
    return Reliability(mean_prob, share, counts)


def calibration_errors(
    probs: FloatArray, came_true: BoolArray, weights: IntArray, n_bins: int = N_BINS
) -> FloatArray:
    """Compute the error of `reliability` for draws of the cases.

    Args:
        probs: (N,) in [0, 1].
        came_true: (N,).
        weights: (D, N) how often each case is in each draw.

    Returns:
        (D,) in [0, 1], NaN in draws without cases.
    """
    gaps = np.zeros((len(probs), n_bins))
    gaps[np.arange(len(probs)), _bins(probs, n_bins)] = came_true - probs
    return ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def class_reliabilities(
    true_categories: IntArray, class_probs: FloatArray
) -> tuple[list[Reliability], Reliability]:
    """Hold the global head's probabilities against what the images are.

    Args:
        true_categories: (I,) in [0, 3).
        class_probs: (I, 3).

    Returns:
        One for each class, over all images; and one of the class that is most probable in each
        image, whose error is the usual expected calibration error.
    """
    of_classes = [
        reliability(class_probs[:, category], true_categories == category)
        for category in range(N_CLASSES)
    ]
    top = class_probs.argmax(axis=1)
    return of_classes, reliability(class_probs.max(axis=1), true_categories == top)


def _bins(probs: FloatArray, n_bins: int) -> IntArray:
    """Return the bin of each probability (N,): a bin holds its lower edge, the last one 1 too."""
    return np.minimum((probs * n_bins).astype(np.int64), n_bins - 1)
