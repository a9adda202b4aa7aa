"""The challenge's score: mean precision over IoU thresholds from .40 to .75.

For one image and one IoU threshold the precision is TP / (TP + FP + FN). It is averaged over the
thresholds, then over the images. An image without true boxes scores 0 if anything is predicted
and does not count otherwise.

Kept from the original: a match needs IoU >= the threshold (the challenge's page says greater), and
the true boxes choose in their own order, each the best-scored box that is left. A box of lower
score never takes a match from one of higher score, so the same matches come out of one pass down
the scores, in which each predicted box takes the first true box that is still free. This is what
makes a sweep cheap: the boxes above any score threshold are the start of that pass.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

NO_MATCH = -1  # of a predicted box that hits no true one
BOOTSTRAP_DRAWS = 2000
IOU_THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)


class Boxes(NamedTuple):
    """The boxes of many images in one table.

    Attributes:
        xywh: (K, 4) float64, image after image.
        offsets: (I + 1,) int64; image i has rows offsets[i] to offsets[i + 1].
    """

    xywh: FloatArray
    offsets: IntArray

    def counts(self) -> IntArray:
        """Return the number of boxes of each image, (I,)."""
        return np.diff(self.offsets)

    def rows(self, image: int) -> slice:
        """Return where the boxes of an image stand in the table."""
        return slice(*self.offsets[image : image + 2].tolist())

    def kept(self, mask: BoolArray) -> Boxes:
        """Return the boxes where `mask` (K,) is true, image after image as before."""
        return Boxes(self.xywh[mask], np.concatenate([[0], np.cumsum(mask)])[self.offsets])

    def images(self) -> IntArray:
        """Return the image that each box belongs to, (K,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts())


def iou(boxes_xywh: ArrayLike, others_xywh: ArrayLike) -> FloatArray:
    """Compute intersection over union, box by box.

    Args:
        boxes_xywh: (..., 4).
        others_xywh: (..., 4), leading dimensions that broadcast: `iou(a[:, None], b)` is a table.

    Returns:
        (...) in [0, 1]; 0 where a box has no area.
    """
    boxes = np.asarray(boxes_xywh, dtype=np.float64)
    others = np.asarray(others_xywh, dtype=np.float64)
    right_bottom = np.minimum(boxes[..., :2] + boxes[..., 2:], others[..., :2] + others[..., 2:])
    sides = np.maximum(right_bottom - np.maximum(boxes[..., :2], others[..., :2]), 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    area, other_area = boxes[..., 2] * boxes[..., 3], others[..., 2] * others[..., 3]
    union = area + other_area - intersection
    valid = (area > 0) & (other_area > 0)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=valid)


def map_iou(
    boxes_true_xywh: ArrayLike,
    boxes_pred_xywh: ArrayLike,
    scores: ArrayLike,
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
) -> float | None:
    """Score one image.

    Args:
        boxes_true_xywh: (M, 4), M may be 0.
        boxes_pred_xywh: (N, 4), N may be 0.
        scores: (N,) confidences; equal ones keep their order.
        thresholds: of IoU.

    Returns:
        The mean precision in [0, 1], or None where the image does not count: no true boxes and
        none predicted.
    """
    true = np.asarray(boxes_true_xywh, dtype=np.float64).reshape(-1, 4)
    predicted = np.asarray(boxes_pred_xywh, dtype=np.float64).reshape(-1, 4)
    if len(true) == 0:
        return 0.0 if len(predicted) else None
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    steps = precision_steps(single_image(predicted[order]), single_image(true), thresholds)
    return float(steps.sum())


def single_image(boxes_xywh: FloatArray) -> Boxes:
    """Wrap the boxes (K, 4) of one image."""
    return Boxes(boxes_xywh, np.array([0, len(boxes_xywh)]))


def precision_steps(
    predicted: Boxes, true: Boxes, thresholds: tuple[float, ...] = IOU_THRESHOLDS
) -> FloatArray:
    """Compute how each box changes its image's precision when it is kept after the better ones.

    The precision of an image is 0 with no box kept; with the k best kept it is the sum of its
    first k steps.

    Args:
        predicted: K boxes, best first within each image.
        true: of the same images.
        thresholds: of IoU.

    Returns:
        (K,) steps, 0 in images without true boxes.
    """
    n_true = np.repeat(true.counts(), predicted.counts())  # of each box's image
    rows = np.flatnonzero(n_true > 0)
    steps = np.zeros(len(n_true))
    if len(rows) == 0:
        return steps
    rank = np.arange(len(n_true)) - np.repeat(predicted.offsets[:-1], predicted.counts())
    rank, n_true = rank[rows, None], n_true[rows, None]
    hits = match_boxes(predicted, true, thresholds)[rows] != NO_MATCH
    n_hits = hits.cumsum(axis=0)  # (K, T)
    first = np.flatnonzero(rank == 0)
    before = np.concatenate([np.zeros((1, n_hits.shape[1]), dtype=n_hits.dtype), n_hits])[first]
    n_hits = n_hits - np.repeat(before, np.diff(np.append(first, len(rows))), axis=0)
    precision = (n_hits / (rank + 1 + n_true - n_hits)).mean(axis=1)
    change = np.diff(precision, prepend=0.0)
    change[first] = precision[first]
    steps[rows] = change
    return steps


def match_boxes(
    predicted: Boxes, true: Boxes, thresholds: tuple[float, ...] = IOU_THRESHOLDS
) -> IntArray:
    """Find the true box that each predicted box hits.

    Args:
        predicted: K boxes, best first within each image.
        true: of the same images.
        thresholds: T of IoU.

    Returns:
        (K, T) rows of `true`, -1 where a box hits none; whatever else of the image is kept, because
        a hit depends on the better boxes alone.
    """
    limits = np.asarray(thresholds, dtype=np.float64)
    hits = np.full((len(predicted.xywh), len(limits)), NO_MATCH)
    found, target = _pairs(predicted, true)
    overlaps = iou(predicted.xywh[found], true.xywh[target])
    close = overlaps >= limits.min(initial=np.inf)
    found, target, overlaps = found[close], target[close], overlaps[close]
    reached = overlaps[:, None] >= limits

    n_rivals = np.bincount(target, minlength=len(true.xywh))[target]
    n_choices = np.bincount(found, minlength=len(hits))[found]
    alone = (n_rivals == 1) & (n_choices == 1)
    hits[found[alone]] = np.where(reached[alone], target[alone, None], NO_MATCH)
    # The rest in turns: the first pair of every image, then the second, ...
    found, target, reached = found[~alone], target[~alone], reached[~alone]
    image = np.searchsorted(predicted.offsets, found, side="right") - 1
    turn = np.arange(len(image)) - np.searchsorted(image, image, side="left")
    taken = np.zeros((len(true.xywh), len(limits)), dtype=bool)
    order = np.argsort(turn, kind="stable")
    for pairs in np.split(order, np.cumsum(np.bincount(turn))[:-1]) if len(order) else []:
        f, t = found[pairs], target[pairs]
        new = reached[pairs] & (hits[f] == NO_MATCH) & ~taken[t]
        hits[f] = np.where(new, t[:, None], hits[f])
        taken[t] |= new
    return hits


def dataset_scores(
    predicted: Boxes,
    steps: FloatArray,
    n_true: IntArray,
    scores: FloatArray,
    thresholds: ArrayLike,
) -> FloatArray:
    """Score a data set at many score thresholds in one pass.

    Args:
        predicted: K boxes, best first within each image.
        steps: (K,) of `precision_steps`.
        n_true: (I,) true boxes of each image.
        scores: (K,) what is compared with the thresholds; descending within each image.
        thresholds: (S,); a box counts when its score is greater.

    Returns:
        (S,) mean over the images that count; NaN where none does.
    """
    totals, n_counted = score_sums(predicted, steps, n_true, scores, thresholds)
    return mean_of_counted(totals, n_counted)


def score_sums(
    predicted: Boxes,
    steps: FloatArray,
    n_true: IntArray,
    scores: FloatArray,
    thresholds: ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """Sum up what `dataset_scores` averages.

    Returns:
        (S,) the sum of the images' scores, and (S,) the images that count.
    """
    levels = np.asarray(thresholds, dtype=np.float64)
    ascending = np.argsort(levels, kind="stable")
    has_false_alarm = (predicted.counts() > 0) & (n_true == 0)
    tops = scores[predicted.offsets[:-1][has_false_alarm]]
    totals = np.empty(len(levels))
    n_false_alarms = np.empty(len(levels))
    totals[ascending] = _sums_above(levels[ascending], scores, steps)
    n_false_alarms[ascending] = _sums_above(levels[ascending], tops, np.ones(len(tops)))
    return totals, (n_true > 0).sum() + n_false_alarms


def mean_of_counted(totals: FloatArray, n_counted: FloatArray) -> FloatArray:
    """Divide sums of scores by the images that count; NaN where none does."""
    return np.divide(totals, n_counted, out=np.full(totals.shape, np.nan), where=n_counted > 0)


def image_scores(
    predicted: Boxes, true: Boxes, thresholds: tuple[float, ...] = IOU_THRESHOLDS
) -> FloatArray:
    """Score every image by the boxes that are predicted in it.

    Args:
        predicted: K boxes, best first within each image.
        true: of the same images.
        thresholds: of IoU.

    Returns:
        (I,) mean precision of each image, NaN where it does not count.
    """
    n_true = true.counts()
    steps = precision_steps(predicted, true, thresholds)
    totals = np.bincount(predicted.images(), weights=steps, minlength=len(n_true))
    return np.where((n_true == 0) & (predicted.counts() == 0), np.nan, totals)


def bootstrap_interval(
    scores: FloatArray,
    patients: IntArray | None = None,
    *,
    share: float = 0.95,
    n_draws: int = BOOTSTRAP_DRAWS,
) -> tuple[float, float]:
    """Estimate how far a mean could lie elsewhere with other patients of the same kind.

    Args:
        scores: (I,) of images, NaN where one does not count.
        patients: (I,) the patient that each image belongs to; None: each is of another. Patients
            are drawn with replacement, those of whom no image counts too.
        share: of the draws that lie in the interval.

    Returns:
        Its lower and upper end, the same draws every time; NaN where no image counts.
    """
    if np.isnan(scores).all():
        return float("nan"), float("nan")
    names = np.arange(len(scores)) if patients is None else patients
    _, rows = np.unique(names, return_inverse=True)
    counts = np.bincount(rows, weights=~np.isnan(scores))  # of each patient
    sums = np.bincount(rows, weights=np.nan_to_num(scores))
    # Patients who are alike are drawn as one: how many of them come is all that matters.
    kinds, n_patients = np.unique(
        np.stack([counts == 0, sums, counts], axis=1), axis=0, return_counts=True
    )
    shares = n_patients / len(counts)
    n_drawn = np.random.default_rng(0).multinomial(len(counts), shares, size=n_draws)  # (D, kinds)
    counted = kinds[:, 0] == 0
    totals, n_counted = (n_drawn[:, counted] @ kinds[counted, column] for column in (1, 2))
    means = np.divide(totals, n_counted, out=np.full(n_draws, np.nan), where=n_counted > 0)
    low, high = np.nanquantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def mean_score(image_scores: FloatArray) -> float:
    """Return the mean of the scores (I,) of the images that count; NaN where none does."""
    counted = image_scores[~np.isnan(image_scores)]
    return float(counted.mean()) if len(counted) else float("nan")


def _pairs(predicted: Boxes, true: Boxes) -> tuple[IntArray, IntArray]:
    """Pair every predicted box with every true one of its image: rows in both tables, in order."""
    n_true = np.repeat(true.counts(), predicted.counts())
    found = np.repeat(np.arange(len(n_true)), n_true)
    start = np.repeat(np.repeat(true.offsets[:-1], predicted.counts()), n_true)
    first_pair = np.repeat(np.cumsum(n_true) - n_true, n_true)
    return found, start + np.arange(len(found)) - first_pair


def _sums_above(levels: FloatArray, values: FloatArray, weights: FloatArray) -> FloatArray:
    """Sum the weights of the values (K,) that are greater, for each ascending level (S,)."""
    n_below = np.searchsorted(levels, values, side="left")  # how many levels a value is above
    sums = np.bincount(n_below, weights=weights, minlength=len(levels) + 1)
    return sums[::-1].cumsum()[::-1][1:]
