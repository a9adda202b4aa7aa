"""The bootstrap over patients: draws with replacement, and the interval of a number over them.

A draw is a row of weights: how often each image is there. A number is written once, as a function
of D rows of weights that returns (D,) values; weights of 1 give its value on the data themselves.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from src.metric import FloatArray, IntArray

NORMAL_975 = 1.959964  # quantile at .975 of the normal distribution
SEED = 0  # the same draws for every number and every run that is compared


def draw_patients(patients: IntArray, n_draws: int, *, seed: int = SEED) -> IntArray:
    """Draw as many patients as there are, with replacement, each with all of their images.

    Args:
        patients: (I,) the patient that each image belongs to.
        n_draws: D.

    Returns:
        (D, I) how often each image is in each draw.
    """
    names, rows = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(seed)
    weights = np.zeros((n_draws, len(rows)), dtype=np.int64)
    for draw in weights:
        drawn = rng.integers(len(names), size=len(names)) if len(names) else rows
        draw[:] = np.bincount(drawn, minlength=len(names))[rows]
    return weights


def percentile_interval(values: FloatArray, *, share: float = 0.95) -> tuple[float, float]:
    """Return the interval that holds the middle of a number's draws.

    Args:
        values: (D,) NaN in draws where the number is undefined; these are left out.
        share: of the draws that lie in the interval.

    Returns:
        Its lower and upper end; NaN where the number is undefined in every draw.
    """
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def widen_draws(draws: FloatArray, value: float, n_patients: int) -> FloatArray:
    """Move the draws of a difference away from its value on the data, as few patients ask for.

    Draws spread as a variance over n does, not over n - 1, and their quantiles come close to a
    normal distribution's where a small sample asks for Student's t. Both make percentile intervals
    too narrow, and a test by them finds too much (Hesterberg, The American Statistician 2015). For
    40 patients this widens by 4.5 %, for 1,000 by .2 %.

    Args:
        draws: (D,).
        value: on the data.
        n_patients: that were drawn from.
    """
    if n_patients < 2:
        return draws
    z, n_free = NORMAL_975, n_patients - 1
    # Student's quantile by the first terms of its series (Abramowitz and Stegun, 26.7.5).
    t = z + (z**3 + z) / (4 * n_free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n_free**2)
    return value + (draws - value) * (t / z) * math.sqrt(n_patients / n_free)


def ratio(values: NDArray[np.number], totals: NDArray[np.number]) -> FloatArray:
    """Divide, with NaN where the total is 0: a share of nothing is undefined."""
    shape = np.broadcast_shapes(values.shape, totals.shape)
    return np.divide(values, totals, out=np.full(shape, np.nan), where=totals > 0)
