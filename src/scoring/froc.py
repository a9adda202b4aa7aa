"""The FROC curve: the share of true boxes that are hit, against false positives an image.

A point of the curve is a score; the boxes with this score or a higher one count. A hit overlaps a
true box by .40 or more, matched by COCO's rule, of the 100 best boxes of an image. Nothing is
interpolated: at a number of false positives an image stands the most sensitive point with no more
of them. Where all saved boxes have fewer false positives, that is the curve's last point;
`false_positives_reached` says where it lies.
"""

from __future__ import annotations

import numpy as np

from src.metric import FloatArray, IntArray
from src.scoring.bootstrap import ratio
from src.scoring.ranked_boxes import LOWEST_IOU, DrawnBoxes

FALSE_POSITIVES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # an image; those of LUNA16


def froc_sensitivity(drawn: DrawnBoxes, false_positives: float) -> FloatArray:
    """Compute the sensitivity at a number of false positives an image.

    Args:
        false_positives: at most so many an image, on average over the images of a draw.

    Returns:
        (D,) in [0, 1]; NaN in draws without true boxes.
    """
    return _sensitivity(drawn, *_points(drawn), false_positives)


def mean_froc_sensitivity(drawn: DrawnBoxes) -> FloatArray:
    """Average the sensitivity over `FALSE_POSITIVES`, (D,); NaN in draws without true boxes."""
    points = _points(drawn)
    return np.mean([_sensitivity(drawn, *points, level) for level in FALSE_POSITIVES], axis=0)


def false_positives_reached(drawn: DrawnBoxes) -> FloatArray:
    """Count the false positives an image among all saved boxes, (D,).

    A sensitivity at more of them is that at this number.
    """
    _, n_hits = drawn.hits_at(LOWEST_IOU)
    n_false = drawn.n_found[:, -1:].sum(axis=1) - n_hits[:, -1:].sum(axis=1)
    return ratio(n_false, drawn.n_images)


def froc_curve(drawn: DrawnBoxes) -> tuple[FloatArray, FloatArray]:
    """Compute the points of the curve, one for each of the P scores that a hit has, best first.

    Returns:
        False positives an image and sensitivity, (D, P) both; NaN where there are no images, or no
        true boxes.
    """
    n_hits, n_false = _points(drawn)
    return ratio(n_false, drawn.n_images[:, None]), ratio(n_hits, drawn.n_true[:, None])


def _points(drawn: DrawnBoxes) -> tuple[IntArray, IntArray]:
    """Count hits and false positives down to each of the P scores that a hit has, (D, P) both."""
    stops, n_hits = drawn.hits_at(LOWEST_IOU)
    ends = drawn.ranked.ends[stops]
    is_last = np.diff(ends, append=-1) != 0  # of the hits of its score
    n_hits = n_hits[:, is_last]
    return n_hits, drawn.n_found[:, ends[is_last]] - n_hits


def _sensitivity(
    drawn: DrawnBoxes, n_hits: IntArray, n_false: IntArray, false_positives: float
) -> FloatArray:
    may_count = n_false <= false_positives * drawn.n_images[:, None]
    return ratio(np.where(may_count, n_hits, 0).max(axis=1, initial=0), drawn.n_true)
