"""Average precision of boxes by COCO's rules, for draws of the images.

Precision is read at 101 levels of recall, after each value is raised to the highest that any higher
recall has. Equal scores stay in the order of the images, as in COCO; an image that is in a draw
several times has the copies of each box next to one another.
"""

from __future__ import annotations

import numpy as np

from src.metric import FloatArray, IntArray
from src.scoring.ranked_boxes import COCO_IOUS, DrawnBoxes

RECALL_LEVELS = np.linspace(0.0, 1.0, 101)


def average_precision(drawn: DrawnBoxes, iou_threshold: float) -> FloatArray:
    """Compute COCO's average precision at one IoU threshold.

    Args:
        iou_threshold: one of `IOUS`.

    Returns:
        (D,) in [0, 1]; NaN in draws without true boxes.
    """
    return precision_at_recall(drawn, iou_threshold).mean(axis=1)


def precision_at_recall(drawn: DrawnBoxes, iou_threshold: float) -> FloatArray:
    """Read precision at `RECALL_LEVELS`; its mean is the average precision.

    Args:
        iou_threshold: one of `IOUS`.

    Returns:
        (D, 101) in [0, 1], 0 at a recall that is not reached; NaN in draws without true boxes.
    """
    stops, n_hits = drawn.hits_at(iou_threshold)  # (D, H)
    precision = n_hits / np.maximum(drawn.n_found[:, stops], 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.hstack([best, np.zeros((len(best), 1))])  # of a recall that is not reached
    places = _first_places(n_hits, _hits_needed(drawn.n_true))
    values = np.take_along_axis(best, places, axis=1)
    return np.where(drawn.n_true[:, None] > 0, values, np.nan)


def mean_average_precision(drawn: DrawnBoxes) -> FloatArray:
    """Average over the IoU thresholds from .50 to .95, (D,); NaN in draws without true boxes."""
    return np.mean([average_precision(drawn, threshold) for threshold in COCO_IOUS], axis=0)


def _hits_needed(n_true: IntArray) -> IntArray:
    """Count the hits for each recall level, (D, 101): the fewest whose quotient is no less.

    The quotient is compared as COCO does it, rounded: 35 of 100 do not reach the level .35, which
    is a little more in floating point.
    """
    totals = np.maximum(n_true, 1)[:, None]
    needed = np.ceil(RECALL_LEVELS * totals)
    needed -= (needed - 1) / totals >= RECALL_LEVELS
    needed += needed / totals < RECALL_LEVELS
    return needed.astype(np.int64)


def _first_places(n_hits: IntArray, needed: IntArray) -> IntArray:
    """Find where each row (D, H), ascending, first reaches what is needed (D, L); H if nowhere."""
    n_draws, n_places = n_hits.shape
    stride = max(n_hits.max(initial=0), needed.max(initial=0)) + 1
    row_start = np.arange(n_draws)[:, None]
    flat = (n_hits + row_start * stride).ravel()
    return np.searchsorted(flat, needed + row_start * stride) - row_start * n_places
