"""The numbers that papers quote of a detector: a table of them, and their values with intervals.

A new number is a function of `DrawnBoxes` or `DrawnImages` that returns a value for each draw, and
a row of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from src.metric import FloatArray, IntArray
from src.scoring.average_precision import average_precision, mean_average_precision
from src.scoring.bootstrap import draw_patients, percentile_interval
from src.scoring.froc import (
    FALSE_POSITIVES,
    false_positives_reached,
    froc_sensitivity,
    mean_froc_sensitivity,
)
from src.scoring.image_level import (
    DrawnImages,
    auroc,
    calibration_error,
    image_average_precision,
    sensitivity_at_specificity,
)
from src.scoring.ranked_boxes import DrawnBoxes, RankedBoxes, rank_boxes
from src.scoring.scored_images import ScoredImages

N_DRAWS = 1000
DRAWS_AT_ONCE = 50  # bounds the memory, and is faster than all at once

Drawn = TypeVar("Drawn", DrawnBoxes, DrawnImages)


@dataclass(frozen=True)
class Number(Generic[Drawn]):
    """A number that is computed for every draw.

    Attributes:
        name: of its own in the table.
        text: says to a reader what it is.
        compute: returns a value for each draw, (D,), NaN where it is undefined.
    """

    name: str
    text: str
    compute: Callable[[Drawn], FloatArray]


BOX_NUMBERS: tuple[Number[DrawnBoxes], ...] = (
    *(
        Number(
            f"ap_{100 * iou:.0f}",
            f"average precision at IoU {iou:.2f}, by COCO's rules",
            partial(average_precision, iou_threshold=iou),
        )
        for iou in (0.4, 0.5, 0.75)
    ),
    Number("ap", "average precision, mean over IoU .50 to .95 (COCO)", mean_average_precision),
    *(
        Number(
            f"froc_{level:g}",
            f"sensitivity at {level:g} false positives an image, IoU 0.40",
            partial(froc_sensitivity, false_positives=level),
        )
        for level in FALSE_POSITIVES
    ),
    Number("froc", "mean sensitivity at 1/8 to 8 false positives an image", mean_froc_sensitivity),
    Number(
        "froc_reached",
        "false positives an image of all saved boxes; sensitivities at more are those at this",
        false_positives_reached,
    ),
)
IMAGE_NUMBERS: tuple[Number[DrawnImages], ...] = (
    Number("auroc", "area under the ROC curve of images with an opacity", auroc),
    Number("image_ap", "average precision of images with an opacity", image_average_precision),
    *(
        Number(
            f"sensitivity_{100 * level:.0f}",
            f"sensitivity at {100 * level:.0f} % specificity, images",
            partial(sensitivity_at_specificity, specificity=level),
        )
        for level in (0.9, 0.95)
    ),
    Number("ece", "expected calibration error of images, 10 bins", calibration_error),
)
NUMBERS: tuple[Number[Any], ...] = (*BOX_NUMBERS, *IMAGE_NUMBERS)


class NumberResult(NamedTuple):
    """A number with its 95 % interval.

    Attributes:
        name: in `NUMBERS`.
        image_score: the name of the image score that it judges; "" for numbers of boxes.
        value: on the images themselves, NaN where it is undefined.
        low, high: of 95 % of the draws of patients, NaN where it is undefined in all.
        text: says to a reader what it is.
    """

    name: str
    image_score: str
    value: float
    low: float
    high: float
    text: str


def compute_numbers(data: ScoredImages, n_draws: int = N_DRAWS) -> list[NumberResult]:
    """Compute every number of `NUMBERS`: those of boxes, then those of each image score.

    Those of boxes are NaN where the boxes are not complete.

    Args:
        n_draws: of patients; with 0 the intervals are NaN.
    """
    ones = np.ones((1, len(data.patients)), dtype=np.int64)
    weights = np.concatenate([ones, draw_patients(data.patients, n_draws)])
    ranked = rank_boxes(data)
    starts = range(0, len(weights), DRAWS_AT_ONCE)
    values = np.hstack([_values(data, ranked, weights[i : i + DRAWS_AT_ONCE]) for i in starts])
    rows: list[tuple[Number[Any], str]] = [(number, "") for number in BOX_NUMBERS]
    rows += [(number, score) for score in data.image_scores for number in IMAGE_NUMBERS]
    return [
        NumberResult(number.name, score, float(own[0]), *percentile_interval(own[1:]), number.text)
        for (number, score), own in zip(rows, values, strict=True)
    ]


def count_cases(data: ScoredImages) -> dict[str, int]:
    """Count what the numbers were computed from, by a text for a reader."""
    return {
        "images": len(data.ids),
        "images with an opacity": int(data.has_opacity.sum()),
        "patients": len(np.unique(data.patients)),
        "true boxes": len(data.true.xywh),
        "predicted boxes": len(data.predicted.xywh),
    }


def _values(data: ScoredImages, ranked: RankedBoxes, weights: IntArray) -> FloatArray:
    """Compute all numbers (N, D) for some draws (D, I)."""
    boxes = DrawnBoxes(ranked, weights)
    values = [number.compute(boxes) for number in BOX_NUMBERS]
    if not data.is_complete:
        values = [np.full(len(weights), np.nan)] * len(BOX_NUMBERS)
    for scores in data.image_scores.values():
        images = DrawnImages(scores, data.has_opacity, weights)
        values += [number.compute(images) for number in IMAGE_NUMBERS]
    return np.array(values)
