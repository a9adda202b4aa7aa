"""What the numbers of the literature are computed from: found and true boxes of the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.metric import BoolArray, Boxes, FloatArray, IntArray
from src.prediction.postprocess import gate_scores, shrink_boxes, suppress_at
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess
from src.structures import OPACITY


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """Predictions of images whose truth is known.

    Attributes:
        ids: I names of the images.
        patients: (I,) the patient that each image belongs to, any integers.
        predicted: K boxes, xywh, best first within each image; after the suppression of overlaps,
            and of all scores.
        scores: (K,) of the predicted boxes, descending within each image.
        true: the true boxes of the same images, xywh in the same pixels.
        image_scores: name -> (I,) probabilities in [0, 1] that an image shows an opacity.
        is_complete: whether the predicted boxes go on below those that can count in the end. Where
            they do not, average precision and FROC say too little.
    """

    ids: Sequence[str]
    patients: IntArray
    predicted: Boxes
    scores: FloatArray
    true: Boxes
    image_scores: Mapping[str, FloatArray]
    is_complete: bool = True

    @property
    def has_opacity(self) -> BoolArray:
        """Return which images have true boxes, (I,)."""
        return self.true.counts() > 0


def scored_predictions(predictions: Predictions, postprocess: Postprocess) -> ScoredImages:
    """Take saved predictions with truth as what numbers are computed from.

    Boxes are ranked by the gate, without a threshold. An image is judged by the global head's
    probability of an opacity, by its best box, and by the geometric mean of the two.

    Args:
        postprocess: the gate, the suppression and the shrinking of boxes.
    """
    found = predictions.with_weak()
    kept = suppress_at(found.candidates(), [postprocess.nms])[0]
    boxes = found.candidates().kept(kept)
    best = best_scores(boxes, found.scores[kept])
    opacity = predictions.class_probs[:, OPACITY].astype(np.float64)
    return ScoredImages(
        ids=predictions.ids.tolist(),
        patients=predictions.patients,
        predicted=boxes._replace(xywh=shrink_boxes(boxes.xywh, postprocess.shrink)),
        scores=gate_scores(found, postprocess.gate)[kept],
        true=predictions.truth(),
        image_scores={
            "global head": opacity,
            "best box": best,
            "both": np.sqrt(opacity * best),
        },
        is_complete=predictions.provenance.weak is not None,
    )


def scored_boxes(
    ids: Sequence[str], patients: IntArray, predicted: Boxes, scores: FloatArray, true: Boxes
) -> ScoredImages:
    """Take the boxes of any detector as they are; their best one judges an image."""
    return ScoredImages(
        ids=ids,
        patients=patients,
        predicted=predicted,
        scores=scores,
        true=true,
        image_scores={"best box": best_scores(predicted, scores)},
    )


def best_scores(boxes: Boxes, scores: NDArray[np.floating[Any]]) -> FloatArray:
    """Return the score of the best box of each image, (I,); 0 where it has none."""
    has_boxes = boxes.counts() > 0
    best = np.zeros(len(has_boxes))
    best[has_boxes] = scores[boxes.offsets[:-1][has_boxes]]
    return best
