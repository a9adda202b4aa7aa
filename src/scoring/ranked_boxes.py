"""The predicted boxes of all images in one order, and which of them hit, by COCO's rule.

Down the scores each box takes, of the true boxes of its image that are still free and that it
overlaps enough, the one that it overlaps most; of equal ones the last. The challenge's rule is
another one (src/metric.py): there a box takes the first true box that is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from src.metric import BoolArray, Boxes, FloatArray, IntArray, iou
from src.scoring.scored_images import ScoredImages

MAX_BOXES = 100  # of an image, the best; COCO's maxDets
COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # as COCO computes them, to the last bit
LOWEST_IOU = 0.4  # the challenge's lowest
IOUS = (LOWEST_IOU, *COCO_IOUS)


@dataclass(frozen=True, eq=False)
class RankedBoxes:
    """The best boxes of every image, best first over all images, and where hits are among them.

    Of equal scores the earlier image comes first. Only some places of that order matter to the
    numbers: the S stops, which are the boxes that hit at any of `IOUS`, the last boxes of a score
    that a hit has, and the very last box.

    Attributes:
        images: (K,) the image of each box.
        stops: (S,) ascending rows of `images`.
        hits: (S, T) whether the box at a stop hits at each of `IOUS`.
        ends: (S,) for each stop the one that is the last box of the same score, an index of
            `stops`; right for hits only.
        n_true: (I,) true boxes of each image.
    """

    images: IntArray
    stops: IntArray
    hits: BoolArray
    ends: IntArray
    n_true: IntArray


def rank_boxes(data: ScoredImages) -> RankedBoxes:
    """Match the boxes of every image and put all boxes in order."""
    found = data.predicted
    rank = np.arange(len(found.xywh)) - np.repeat(found.offsets[:-1], found.counts())
    kept = rank < MAX_BOXES
    best, scores = found.kept(kept), data.scores[kept]
    order = np.argsort(-scores, kind="stable")
    hits = coco_hits(best, data.true)[order]
    rows_of_hits = np.flatnonzero(hits.any(axis=1))
    ends = np.searchsorted(-scores[order], -scores[order][rows_of_hits], side="right") - 1
    last = np.arange(len(order))[-1:]
    stops = np.unique(np.concatenate([rows_of_hits, ends, last]))
    ends_of_stops = np.arange(len(stops))
    ends_of_stops[np.searchsorted(stops, rows_of_hits)] = np.searchsorted(stops, ends)
    return RankedBoxes(
        images=best.images()[order],
        stops=stops,
        hits=hits[stops],
        ends=ends_of_stops,
        n_true=data.true.counts(),
    )


def coco_hits(predicted: Boxes, true: Boxes, thresholds: tuple[float, ...] = IOUS) -> BoolArray:
    """Say which predicted boxes hit a true one, by COCO's rule.

    Args:
        predicted: K boxes, best first within each image.
        true: of the same images.
        thresholds: T of IoU, above 0.

    Returns:
        (K, T).
    """
    hits = np.zeros((len(predicted.xywh), len(thresholds)), dtype=bool)
    limits = np.array(thresholds)[:, None]
    rows, overlaps = _close_boxes(predicted, true, min(thresholds))
    images = predicted.images()[rows]
    is_free = np.ones((len(true.counts()), len(thresholds), overlaps.shape[1]), dtype=bool)
    # In turns: the best box of every image, then the second, ...
    turn = np.arange(len(images)) - np.searchsorted(images, images, side="left")
    order = np.argsort(turn, kind="stable")
    for boxes in np.split(order, np.cumsum(np.bincount(turn))[:-1]) if len(order) else []:
        image = images[boxes]
        reached = overlaps[boxes, None, :]  # (R, 1, M)
        choice = np.where(is_free[image] & (reached >= limits), reached, 0.0)  # (R, T, M)
        target = choice.shape[2] - 1 - choice[..., ::-1].argmax(axis=2)  # the last of the best
        is_hit = choice.max(axis=2) > 0
        hits[rows[boxes]] = is_hit
        box, threshold = np.nonzero(is_hit)
        is_free[image[box], threshold, target[box, threshold]] = False
    return hits


def _close_boxes(predicted: Boxes, true: Boxes, lowest: float) -> tuple[IntArray, FloatArray]:
    """Find the boxes that overlap any true box enough.

    Returns:
        (C,) rows of `predicted`, ascending; (C, M) their IoU with the true boxes of their image, 0
        where it has fewer than M.
    """
    n_true = true.counts()
    rows = np.flatnonzero(n_true[predicted.images()] > 0)
    images = predicted.images()[rows]
    overlaps = np.zeros((len(rows), n_true.max(initial=0)))
    for place in range(overlaps.shape[1]):
        has = n_true[images] > place
        targets = true.offsets[images[has]] + place
        overlaps[has, place] = iou(predicted.xywh[rows[has]], true.xywh[targets])
    is_close = overlaps.max(axis=1, initial=0.0) >= lowest
    return rows[is_close], overlaps[is_close]


@dataclass(frozen=True, eq=False)
class DrawnBoxes:
    """Ranked boxes in several draws of the images.

    Attributes:
        ranked: the boxes.
        weights: (D, I) how often each image is in each draw.
    """

    ranked: RankedBoxes
    weights: IntArray

    @cached_property
    def n_images(self) -> IntArray:
        """Return the images in each draw, (D,)."""
        return self.weights.sum(axis=1)

    @cached_property
    def n_true(self) -> IntArray:
        """Return the true boxes in each draw, (D,)."""
        return self.weights @ self.ranked.n_true

    @cached_property
    def n_found(self) -> IntArray:
        """Count the boxes down to each stop and with it, (D, S)."""
        counts = np.zeros((len(self.weights), len(self.ranked.stops)), dtype=np.int64)
        for draw, weights in zip(counts, self.weights, strict=True):
            draw[:] = weights[self.ranked.images].cumsum()[self.ranked.stops]
        return counts

    def hits_at(self, iou_threshold: float) -> tuple[IntArray, IntArray]:
        """Count the hits at one of `IOUS`, down to each of the H boxes that hit.

        Returns:
            (H,) indices of the stops where they are; (D, H) hits down to each and with it.
        """
        stops = np.flatnonzero(self.ranked.hits[:, IOUS.index(iou_threshold)])
        images = self.ranked.images[self.ranked.stops[stops]]
        return stops, self.weights[:, images].cumsum(axis=1)
