"""The boxes that count at one setting, held against the true ones: hits, false boxes, misses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.metric import IOU_THRESHOLDS, Boxes, FloatArray, IntArray, iou, match_boxes
from src.predictions import Predictions
from src.presets import Postprocess
from src.scores import score_images
from src.selection import gate_scores, shrink_boxes, suppress_at, to_xywh
from src.sweep import ScoresError

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
