"""What the figures of quoted numbers show of a run: its numbers, and the data of its curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from src.metric import IntArray
from src.prediction.predictions import Predictions
from src.prediction.presets import GATES, Postprocess
from src.scoring.quoted_numbers import NumberResult, compute_numbers
from src.scoring.ranked_boxes import DrawnBoxes, rank_boxes
from src.scoring.scored_images import ScoredImages, scored_predictions

HEAD = "global head"  # the image score that claims to be a probability
ROC_SCORES = (HEAD, "best box", "both")


@dataclass(frozen=True, eq=False)
class RunNumbers:
    """The numbers of a run at one epoch and setting, and what its curves are drawn from.

    Attributes:
        name: of the run and its epoch, as it is drawn.
        data: the images.
        results: all numbers of them, with intervals.
        n_draws: of images, for the intervals.
        roc_scores: the image scores whose ROC curves are drawn.
    """

    name: str
    data: ScoredImages
    results: Sequence[NumberResult]
    n_draws: int
    roc_scores: Sequence[str] = ROC_SCORES

    @cached_property
    def ones(self) -> IntArray:
        """Return the weights of the images as they are, (1, I)."""
        return np.ones((1, len(self.data.ids)), dtype=np.int64)

    @cached_property
    def boxes(self) -> DrawnBoxes:
        """Return the ranked boxes of the images as they are."""
        return DrawnBoxes(rank_boxes(self.data), self.ones)

    def result(self, name: str, image_score: str = "") -> NumberResult:
        """Return the number of that name; `image_score` is the one that it judges, if any."""
        key = (name, image_score)
        return next(row for row in self.results if (row.name, row.image_score) == key)


def run_numbers(
    name: str,
    predictions: Predictions,
    postprocess: Postprocess,
    n_draws: int,
    roc_scores: Sequence[str] = ROC_SCORES,
) -> RunNumbers:
    """Compute the numbers of predictions with truth."""
    data = scored_predictions(predictions, postprocess)
    return RunNumbers(name, data, compute_numbers(data, n_draws), n_draws, roc_scores)


def describe_ranking(postprocess: Postprocess) -> str:
    """Say in words which boxes are ranked by what."""
    text = f"boxes by {GATES[postprocess.gate].formula}, NMS {postprocess.nms:g}"
    return text if postprocess.shrink == 1 else f"{text}, sides × {postprocess.shrink:g}"


def in_digits(result: NumberResult) -> str:
    """Write a number with its 95 % interval; without draws there is none."""
    if np.isnan(result.value):
        return "–"
    return (
        f"{result.value:.3f}" if np.isnan(result.low) else f"{result.value:.3f} {interval(result)}"
    )


def interval(result: NumberResult) -> str:
    """Write the 95 % interval of a number."""
    return "–" if np.isnan(result.low) else f"({result.low:.3f} to {result.high:.3f})"
