"""The bootstrap over patients: draws with replacement, and the interval of a number over them.

A draw is a row of weights: how often each image is there. A number is written once, as a function
of D rows of weights that returns (D,) values; weights of 1 give its value on the data themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.metric import FloatArray, IntArray

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


def ratio(values: NDArray[np.number], totals: NDArray[np.number]) -> FloatArray:
    """Divide, with NaN where the total is 0: a share of nothing is undefined."""
    shape = np.broadcast_shapes(values.shape, totals.shape)
    return np.divide(values, totals, out=np.full(shape, np.nan), where=totals > 0)
