"""Found boxes held against the true ones: hits, false boxes, misses; precision and recall.

Also the global head: confusion and calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.metric import IOU_THRESHOLDS, BoolArray, Boxes, FloatArray, IntArray, iou, match_boxes
from src.prediction.postprocess import gate_scores, shrink_boxes, suppress_at, to_xywh
from src.prediction.predictions import Predictions, load_epoch, saved_epochs
from src.prediction.presets import DEFAULT_THRESHOLD, Postprocess
from src.scoring.sweep import ScoresError, load_sweep, saved_threshold, score_images

MATCH_IOU = 0.5  # where precision and recall of detectors are usually stated
N_CLASSES = 3
N_BINS = 10  # of probability


def choose_setting(run_dir: Path, epoch: int | None = None) -> tuple[int, float]:
    """Choose the epoch of a run to look at, and the threshold on score x 5.

    Args:
        epoch: the one that was asked for; None takes the best of scores.npz.

    Returns:
        The epoch, and its best threshold. What scores.npz does not tell is the last saved epoch,
        and .3.
    """
    saved = saved_epochs(run_dir)
    path = run_dir / "scores.npz"
    if epoch is None:
        epoch = load_sweep(path).best()["epoch"] if path.exists() else saved[-1]
    threshold = saved_threshold(path, epoch, "score")
    return epoch, DEFAULT_THRESHOLD if threshold is None else threshold


def load_labelled(run_dir: Path, epoch: int) -> Predictions:
    """Load one epoch's validation predictions, to be held against the truth.

    Raises:
        InputError: they are missing or broken, or of no images, or their labels are not known.
    """
    predictions = load_epoch([run_dir], epoch)
    if len(predictions) == 0 or not predictions.has_truth:
        raise ScoresError(f"{run_dir}: epoch {epoch} holds no truth to compare with")
    return predictions


@dataclass(frozen=True, eq=False)
class Matches:
    """Found boxes, and the true boxes that they hit.

    Attributes:
        boxes: (K, 4) xywh, fractions of the network input's side; what the suppression left.
        scores: (K,) in [0, 1].
        true_rows: (K,) rows of `true_boxes`: for a hit the one that it overlaps most, -1 for a
            false alarm.
        true_boxes: (M, 4) xywh, like `boxes`.
    """

    boxes: FloatArray
    scores: FloatArray
    true_rows: IntArray
    true_boxes: FloatArray

    def above(self, score: float) -> Matches:
        """Return those with a score greater than `score`.

        Their hits stay as they are: a box never takes a true box from one of higher score.
        """
        kept = self.scores > score
        return Matches(self.boxes[kept], self.scores[kept], self.true_rows[kept], self.true_boxes)

    def side_ratios(self) -> FloatArray:
        """Return width and height of each hit over those of its true box, (H, 2)."""
        hits = self.true_rows >= 0
        return self.boxes[hits, 2:] / self.true_boxes[self.true_rows[hits], 2:]


def match_predictions(
    predictions: Predictions, *, nms: float, iou_threshold: float = MATCH_IOU
) -> Matches:
    """Suppress overlapping candidates, then match the rest with the truth.

    Args:
        predictions: with truth.
        nms: a box is dropped when it overlaps a better one by more.
        iou_threshold: a box hits when it overlaps a true one by this or more.
    """
    kept = suppress_at(predictions, [nms])[0]
    offsets = np.concatenate([[0], np.cumsum(kept)])[predictions.offsets]
    found = Boxes(to_xywh(predictions.boxes_xyxy[kept]), offsets)
    true = Boxes(to_xywh(predictions.true_boxes_xyxy), predictions.true_offsets)
    return Matches(
        found.xywh / predictions.img_size,
        predictions.scores[kept].astype(np.float64),
        _overlapped_most(found, true, match_boxes(found, true, (iou_threshold,))[:, 0]),
        true.xywh / predictions.img_size,
    )


def precision_recall(matches: Matches, levels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Count hits over the boxes of all images together.

    Args:
        levels: (S,) a box counts when its score is greater.

    Returns:
        (S,) precision, NaN where no box counts, and (S,) recall, NaN without true boxes.
    """
    hits = matches.true_rows >= 0
    n_found = _count_above(matches.scores, levels)
    n_hits = _count_above(matches.scores[hits], levels)
    precision = np.divide(n_hits, n_found, out=np.full(len(levels), np.nan), where=n_found > 0)
    n_true = len(matches.true_boxes)
    return precision, n_hits / n_true if n_true else np.full(len(levels), np.nan)


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
    bins = np.minimum((probs * n_bins).astype(np.int64), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    sums = (np.bincount(bins, weights=values, minlength=n_bins) for values in (probs, came_true))
    mean_prob, share = (
        np.divide(total, counts, out=np.full(n_bins, np.nan), where=counts > 0) for total in sums
    )
    return Reliability(mean_prob, share, counts)


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


def _overlapped_most(found: Boxes, true: Boxes, hits: BoolArray) -> IntArray:
    """Return the row of the true box that each hit (K,) overlaps most, -1 for the others."""
    rows = np.full(len(hits), -1)
    image = np.repeat(np.arange(len(found.offsets) - 1), found.counts())
    for hit in np.flatnonzero(hits):
        start, stop = true.offsets[image[hit] :][:2]
        rows[hit] = start + iou(found.xywh[hit], true.xywh[start:stop]).argmax()
    return rows


def _count_above(values: FloatArray, levels: FloatArray) -> FloatArray:
    """Count the values (K,) greater than each level (S,)."""
    return len(values) - np.searchsorted(np.sort(values), levels, side="right").astype(np.float64)


HIT_IOU = min(IOU_THRESHOLDS)  # the metric's most lenient


@dataclass(frozen=True, eq=False)
class Findings:
    """The boxes that count at a setting, held against the truth.

    Attributes:
        predictions: where they come from.
        setting: what let them through.
        gates: (K,) what is compared with the threshold, for every candidate.
        rows: (F,) the found boxes' rows among the candidates.
        boxes: the found boxes of every image, shrunk, pixels of the network input; best first.
        true: the true boxes of every image, pixels of the network input.
        matches: (F,) row of the true box that each hits at IoU .40, -1 where it hits none.
        image_scores: (I,) the challenge's score of each image, NaN where it does not count.
    """

    predictions: Predictions
    setting: Postprocess
    gates: FloatArray
    rows: IntArray
    boxes: Boxes
    true: Boxes
    matches: IntArray
    image_scores: FloatArray

    @property
    def missed(self) -> IntArray:
        """Return the rows of the true boxes that nothing hits."""
        return np.setdiff1d(np.arange(len(self.true.xywh)), self.matches)

    def hit_overlaps(self, hits: IntArray) -> FloatArray:
        """Compute the IoU of found boxes that hit with the true boxes that they hit."""
        return iou(self.boxes.xywh[hits], self.true.xywh[self.matches[hits]])


def find_boxes(predictions: Predictions, setting: Postprocess) -> Findings:
    """Select the boxes that count at a setting and match them with the true ones.

    Raises:
        ScoresError: the predictions hold no truth.
    """
    if not predictions.has_truth:
        raise ScoresError("these predictions hold no true boxes: nothing is right or wrong")
    gates = gate_scores(predictions, setting.gate)
    kept = suppress_at(predictions, [setting.nms])[0] & (gates > setting.threshold)
    rows = np.flatnonzero(kept)
    offsets = np.concatenate([[0], np.cumsum(kept)])[predictions.offsets]
    found = to_xywh(predictions.boxes_xyxy[rows])
    boxes = Boxes(shrink_boxes(found, setting.shrink), offsets)
    true = Boxes(to_xywh(predictions.true_boxes_xyxy), predictions.true_offsets)
    return Findings(
        predictions=predictions,
        setting=setting,
        gates=gates,
        rows=rows,
        boxes=boxes,
        true=true,
        matches=_matched_rows(boxes, true),
        image_scores=score_images(predictions, setting),
    )


def _matched_rows(boxes: Boxes, true: Boxes) -> IntArray:
    """Find the true box that each found box (F,) takes, -1 where it takes none.

    A box takes the first true box that is free. So it has a hit among the first j true boxes of
    its image, with the later ones away, if and only if it takes one of those j.
    """
    n_true = true.counts()
    place = np.arange(len(true.xywh)) - np.repeat(true.offsets[:-1], n_true)
    n_without_hit = np.zeros(len(boxes.xywh), dtype=np.int64)
    hits = np.zeros(len(boxes.xywh), dtype=bool)
    for n_first in range(1, n_true.max(initial=0) + 1):
        first = place < n_first
        offsets = np.concatenate([[0], np.cumsum(first)])[true.offsets]
        hits = match_boxes(boxes, Boxes(true.xywh[first], offsets), (HIT_IOU,))[:, 0]
        n_without_hit += ~hits
    start = np.repeat(true.offsets[:-1], boxes.counts())
    return np.where(hits, start + n_without_hit, -1)
