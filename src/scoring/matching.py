"""Found boxes held against the true ones: hits, false boxes, misses; precision and recall."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.metric import IOU_THRESHOLDS, Boxes, FloatArray, IntArray, image_scores, iou, match_boxes
from src.prediction.postprocess import ChosenBoxes, choose_boxes
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess
from src.prediction.saved_epochs import load_epoch
from src.scoring.sweep import ScoresError

HIT_IOU = min(IOU_THRESHOLDS)  # the metric's most lenient
MATCH_IOU = 0.5  # where precision and recall of detectors are usually stated


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
class Findings:
    """The boxes that count, held against the truth.

    Attributes:
        predictions: where they come from.
        postprocess: what let them through.
        chosen: the found boxes of every image, best first.
        true: the true boxes of every image, pixels of the network input.
        matches: (F,) row of the true box that each found box hits at IoU .40, -1 where none.
        image_scores: (I,) the challenge's score of each image, NaN where it does not count.
    """

    predictions: Predictions
    postprocess: Postprocess
    chosen: ChosenBoxes
    true: Boxes
    matches: IntArray
    image_scores: FloatArray

    @property
    def boxes(self) -> Boxes:
        """Return the found boxes, pixels of the network input."""
        return self.chosen.boxes

    @property
    def missed(self) -> IntArray:
        """Return the rows of the true boxes that nothing hits."""
        return np.setdiff1d(np.arange(len(self.true.xywh)), self.matches)

    def hit_overlaps(self, hits: IntArray) -> FloatArray:
        """Compute the IoU of found boxes that hit with the true boxes that they hit."""
        return iou(self.boxes.xywh[hits], self.true.xywh[self.matches[hits]])


def find_boxes(predictions: Predictions, postprocess: Postprocess) -> Findings:
    """Choose the boxes that count and match them with the true ones.

    Raises:
        ScoresError: the predictions hold no truth.
    """
    if not predictions.has_truth:
        raise ScoresError("these predictions hold no true boxes: nothing is right or wrong")
    chosen, true = choose_boxes(predictions, postprocess), predictions.truth()
    return Findings(
        predictions=predictions,
        postprocess=postprocess,
        chosen=chosen,
        true=true,
        matches=match_boxes(chosen.boxes, true, (HIT_IOU,))[:, 0],
        image_scores=image_scores(chosen.boxes, true),
    )


@dataclass(frozen=True, eq=False)
class Matches:
    """Found boxes, and the true boxes that they hit.

    Attributes:
        boxes: (K, 4) xywh, fractions of the network input's side; what the suppression left.
        scores: (K,) in [0, 1].
        true_rows: (K,) rows of `true_boxes`: the one that a box hits, -1 for a false alarm.
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
    """Suppress overlapping candidates, then match all that are left with the truth.

    Args:
        predictions: with truth.
        nms: a box is dropped when it overlaps a better one by more.
        iou_threshold: a box hits when it overlaps a true one by this or more.
    """
    found = choose_boxes(predictions, Postprocess(nms=nms, threshold=-np.inf))
    true = predictions.truth()
    return Matches(
        found.boxes.xywh / predictions.img_size,
        found.scores.astype(np.float64),
        match_boxes(found.boxes, true, (iou_threshold,))[:, 0],
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


def _count_above(values: FloatArray, levels: FloatArray) -> FloatArray:
    """Count the values (K,) greater than each level (S,)."""
    return len(values) - np.searchsorted(np.sort(values), levels, side="right").astype(np.float64)
