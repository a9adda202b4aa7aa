"""Fuses the boxes that several detectors found in one image: NMS, soft-NMS, WBF, or a vote.

Every way takes the same arguments, after which come its own settings:

    boxes_xyxy: for each detector its boxes (N, 4), pixels of the image's file.
    scores: for each detector the scores (N,) of its boxes, in [0, 1].
    weights: (D,) of the detectors, each above 0; only their ratios matter.

and returns the fused boxes (F, 4) in the same pixels with their scores (F,) in [0, 1], best first.
Boxes without an area are left out. Boxes overlap when their IoU is greater than the limit. The
boxes of all detectors are brought into an order of their own before anything else, by weighted
score and then by place. So no result depends on the order of the detectors or of their boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from src import metric
from src.metric import BoolArray, FloatArray, IntArray
from src.prediction.fusion_settings import DEFAULT_IOU, DEFAULT_SIGMA, Average, Decay
from src.prediction.predictions import to_xywh

MIN_SCORE = 0.001  # below which soft-NMS drops a box; the paper's code

Fused = tuple[FloatArray, FloatArray]


def fuse_by_nms(
    boxes_xyxy: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    weights: Sequence[float],
    *,
    iou: float = DEFAULT_IOU,
) -> Fused:
    """Keep the boxes that overlap no better one that is kept.

    Scores are multiplied by the detector's weight over the largest weight: with equal weights they
    stay as they are.
    """
    found = _collect(boxes_xyxy, scores, weights)
    alive = np.ones(len(found.boxes), dtype=bool)
    for row in range(len(alive)):
        if alive[row]:
            alive[row + 1 :] &= found.overlaps(row)[row + 1 :] <= iou
    return found.boxes[alive], found.masses[alive]


def fuse_by_soft_nms(
    boxes_xyxy: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    weights: Sequence[float],
    *,
    decay: Decay = "gaussian",
    sigma: float = DEFAULT_SIGMA,
    iou: float = DEFAULT_IOU,
    min_score: float = MIN_SCORE,
) -> Fused:
    """Lower the scores of boxes that overlap better ones (Bodla et al. 2017, section 3).

    Scores are weighted as in `fuse_by_nms`, then each box that is the best of those left
    multiplies the scores of the others.

    Args:
        decay: "gaussian" multiplies by exp(-IoU² / sigma), "linear" by 1 - IoU where two overlap
            (the paper also where their IoU is the limit itself).
        sigma: above 0; of the Gaussian alone.
        iou: of the linear decay alone.
        min_score: boxes whose score falls to it are dropped.
    """
    found = _collect(boxes_xyxy, scores, weights)
    left = found.masses.copy()  # of the boxes to come; -1 of those that were taken
    rows: list[int] = []
    values: list[float] = []
    while len(left) and left.max() > min_score:
        best = int(left.argmax())
        rows.append(best)
        values.append(float(left[best]))
        left[best] = -1.0
        overlaps = found.overlaps(best)
        if decay == "gaussian":
            factors = np.exp(-(overlaps**2) / sigma)
        else:
            factors = np.where(overlaps > iou, 1 - overlaps, 1.0)
        left = np.where(left >= 0, left * factors, left)
    return found.boxes[rows], np.array(values, dtype=np.float64)


def fuse_by_wbf(
    boxes_xyxy: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    weights: Sequence[float],
    *,
    iou: float = DEFAULT_IOU,
) -> Fused:
    """Average the boxes that overlap (weighted boxes fusion, Solovyev et al. 2021, section 3).

    Each box, the best first, joins the cluster whose fused box it overlaps most, or founds one. A
    fused box is the mean of its cluster, weighted by score times weight.

    Its score is the sum of score times weight, over the sum of all detectors' weights or of the
    cluster's, whichever is greater: where every detector has found the object once it is the
    weighted mean, and a detector that has not counts 0. For equal weights this is the paper's
    C min(T, N) / N.
    """
    found = _collect(boxes_xyxy, scores, weights)
    fused, clusters = np.empty_like(found.boxes), list[list[int]]()
    for row, box in enumerate(found.boxes):
        overlaps = _overlaps(box, fused[: len(clusters)])
        nearest = int(overlaps.argmax()) if len(overlaps) else 0
        if len(overlaps) and overlaps[nearest] > iou:
            clusters[nearest].append(row)
            fused[nearest] = _mean_box(found, clusters[nearest])
        else:
            fused[len(clusters)] = box
            clusters.append([row])
    values = [
        math.fsum(found.masses[own]) / max(math.fsum(found.weights[own]), found.total)
        for own in clusters
    ]
    return _best_first(fused[: len(clusters)], values)


def fuse_by_vote(
    boxes_xyxy: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    weights: Sequence[float],
    *,
    iou: float = DEFAULT_IOU,
    min_votes: int = 1,
    average: Average = "mean",
) -> Fused:
    """Keep what enough detectors have found.

    The best box that is left and all that overlap it are a cluster. Each detector has one vote in
    it, its best box there.

    Args:
        min_votes: detectors that a cluster needs, however large their weights are.
        average: of the corners of the votes' boxes, weighted by detector: "mean" or "median".

    Returns:
        See the module. A score is the mean over all detectors, weighted; one without a vote in the
        cluster counts 0.
    """
    found = _collect(boxes_xyxy, scores, weights)
    left = np.ones(len(found.boxes), dtype=bool)
    fused: list[FloatArray] = []
    values: list[float] = []
    for row in range(len(left)):
        if not left[row]:
            continue
        cluster = left & (found.overlaps(row) > iou)
        cluster[row] = True
        left &= ~cluster
        votes = _votes(found, cluster)
        if len(votes) >= min_votes:
            own = found.weights[votes]
            boxes = found.boxes[votes]
            fused.append(_median_box(boxes, own) if average == "median" else _mean(boxes, own))
            values.append(math.fsum(found.masses[votes]) / found.total)
    return _best_first(np.array(fused, dtype=np.float64).reshape(-1, 4), values)


class _Found(NamedTuple):
    """The boxes of all detectors that have an area, those of the greatest mass first.

    Attributes:
        boxes: (N, 4) xyxy.
        weights: (N,) of their detectors, over the largest of all.
        masses: (N,) score times weight.
        detectors: (N,) indices.
        total: sum of the weights of all detectors, those without a box as well.
    """

    boxes: FloatArray
    weights: FloatArray
    masses: FloatArray
    detectors: IntArray
    total: float

    def overlaps(self, row: int) -> FloatArray:
        """Return the IoU of a box with all, (N,)."""
        return _overlaps(self.boxes[row], self.boxes)


def _collect(
    boxes_xyxy: Sequence[ArrayLike], scores: Sequence[ArrayLike], weights: Sequence[float]
) -> _Found:
    tables = [np.asarray(own, dtype=np.float64).reshape(-1, 4) for own in boxes_xyxy]
    boxes = np.concatenate([np.empty((0, 4)), *tables])
    values = np.concatenate([np.empty(0), *(np.asarray(own, np.float64) for own in scores)])
    detectors = np.repeat(np.arange(len(tables)), [len(own) for own in tables])
    shares = np.asarray(weights, dtype=np.float64) / max(weights)
    own = shares[detectors]
    masses = values * own
    order = np.lexsort((own, *boxes.T[::-1], -masses))
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    order = order[np.take(has_area, order)]
    return _Found(
        boxes[order], own[order], masses[order], detectors[order], math.fsum(shares.tolist())
    )


def _overlaps(box_xyxy: FloatArray, others_xyxy: FloatArray) -> FloatArray:
    return metric.iou(to_xywh(box_xyxy[None]), to_xywh(others_xyxy))


def _mean_box(found: _Found, rows: list[int]) -> FloatArray:
    """Return the mean of some boxes by mass; where all scores are 0, by weight."""
    masses = found.masses[rows]
    return _mean(found.boxes[rows], masses if masses.any() else found.weights[rows])


def _mean(boxes: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weighted mean of boxes; one alone comes back exactly."""
    if len(boxes) == 1:
        return boxes[0]
    mean: FloatArray = (weights / weights.sum()) @ boxes
    return mean


def _median_box(boxes: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weighted median of each corner: the middle of the lower and the upper one."""
    lower, upper = (
        sign * np.quantile(sign * boxes, 0.5, axis=0, weights=weights, method="inverted_cdf")
        for sign in (1, -1)
    )
    median: FloatArray = (lower + upper) / 2
    return median


def _votes(found: _Found, cluster: BoolArray) -> IntArray:
    """Return the row of each detector's best box in a cluster, (V,), best first."""
    rows = np.flatnonzero(cluster)
    return rows[np.sort(np.unique(found.detectors[rows], return_index=True)[1])]


def _best_first(boxes: FloatArray, scores: Sequence[float]) -> Fused:
    values = np.array(scores, dtype=np.float64).clip(0, 1)  # a mean of ones may round to above 1
    order = np.lexsort((*boxes.T[::-1], -values))
    return boxes[order], values[order]
