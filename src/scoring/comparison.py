"""Whether one detector is better than another on the same images: differences, intervals, tests.

Every number is computed for both detectors on the same draws of patients, so that what is hard or
easy in the images cancels out of the difference.

The challenge's score is tested by permutation: were the detectors alike, nobody could tell which of
them made which output, and to swap their outputs for some patients would change nothing. This is
sound because an image's score is on one scale, whoever found the boxes. The other numbers rank the
boxes or the images of a whole set by scores. Those of two detectors need not be on one scale, and a
set of swapped outputs would rank the scores of one among those of the other: it would be worse than
both, and no picture of chance. They are tested by the bootstrap instead: the p value is twice the
share of draws, widened for the number of patients, in which the difference has the other sign, or
none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from src.metric import Boxes, FloatArray, IntArray
from src.scoring.bootstrap import (
    SEED,
    draw_patients,
    percentile_interval,
    ratio,
    widen_draws,
)
from src.scoring.image_level import DrawnImages
from src.scoring.quoted_numbers import BOX_NUMBERS, DRAWS_AT_ONCE, IMAGE_NUMBERS, Number
from src.scoring.ranked_boxes import DrawnBoxes, rank_boxes
from src.scoring.scored_images import ScoredImages

N_DRAWS = 2000
LEVEL = 0.05  # of a test; the usual one
SCORE = "score"  # the name of the challenge's score among the numbers
SCORE_TEXT = "the challenge's score: mean over the images that count"
PERMUTATION, BOOTSTRAP = "permutation", "bootstrap"
LOWER_IS_BETTER = {"ece"}
NEITHER_IS_BETTER = {"froc_reached"}
ROUNDING = 1e-12  # differences that are closer are equal


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """What a detector found in images whose truth is known.

    The images of all that are compared are the same, in the same order.

    Attributes:
        name: for readers.
        data: the boxes of every score, and the image scores.
        image_scores: (I,) the challenge's score of each image by the boxes that count, NaN where
            the image does not count.
        chosen: those boxes, xywh in pixels of the files, best first within each image.
        confidences: of those boxes, descending within each image.
        true: the true boxes, xywh in pixels of the files.
        is_thresholded: the boxes that did not count were not saved: a submission.
    """

    name: str
    data: ScoredImages
    image_scores: FloatArray
    chosen: Boxes
    confidences: FloatArray
    true: Boxes
    is_thresholded: bool = False


class Difference(NamedTuple):
    """A number of two detectors, and whether they differ.

    Attributes:
        number: its name; that of an image score follows in brackets.
        run_a, run_b: rows of the runs that are compared.
        value_a, value_b: on the images themselves.
        difference: the first less the second.
        low, high: of 95 % of the draws of patients; not corrected for several pairs.
        p: of the test that there is no difference.
        p_holm: corrected for the pairs of runs that are compared by this number.
        test: `PERMUTATION` or `BOOTSTRAP`.
        text: says to a reader what the number is.
    """

    number: str
    run_a: int
    run_b: int
    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    test: str
    text: str

    @property
    def is_shown(self) -> bool:
        """Say whether the test finds a difference."""
        return self.p_holm <= LEVEL

    def verdict(self, name_a: str, name_b: str) -> str:
        """Say in words what the test finds."""
        if not self.is_shown:
            return "no difference shown"
        number = self.number.split(" ")[0]
        if number in NEITHER_IS_BETTER:
            return f"{name_a if self.difference > 0 else name_b} has more"
        is_first = (self.difference > 0) != (number in LOWER_IS_BETTER)
        return f"{name_a if is_first else name_b} is better"


class _Drawn(NamedTuple):
    """A number's value on the data, and on each draw (D,)."""

    value: float
    draws: FloatArray
    text: str


def compare_runs(
    runs: Sequence[ComparedRun],
    n_draws: int = N_DRAWS,
    *,
    box_numbers: Sequence[Number[DrawnBoxes]] = BOX_NUMBERS,
    image_numbers: Sequence[Number[DrawnImages]] = IMAGE_NUMBERS,
) -> list[Difference]:
    """Compare every two runs by every number that both can give.

    Args:
        runs: R, of the same images in the same order.
        n_draws: of patients, and of swaps.
        box_numbers, image_numbers: beside the challenge's score.

    Returns:
        Pair after pair, in the order of the runs; of each the challenge's score first.
    """
    patients = _find_patients(runs)
    n_patients = len(np.unique(patients))
    weights = draw_patients(patients, n_draws)
    drawn = [_draw_numbers(run, weights, box_numbers, image_numbers) for run in runs]
    boxes = {number.name for number in box_numbers}
    found: list[Difference] = []
    for a, b in combinations(range(len(runs)), 2):
        is_mixed = runs[a].is_thresholded != runs[b].is_thresholded
        for name, first in drawn[a].items():
            second = drawn[b].get(name)
            if second is None or (is_mixed and name in boxes):
                continue
            if np.isnan(first.value) or np.isnan(second.value):
                continue
            difference = first.value - second.value
            draws = widen_draws(first.draws - second.draws, difference, n_patients)
            if name == SCORE:
                p = permutation_p(runs[a].image_scores, runs[b].image_scores, patients, n_draws)
            else:
                p = bootstrap_p(draws)
            found.append(
                Difference(
                    number=name, run_a=a, run_b=b, value_a=first.value, value_b=second.value,
                    difference=difference,
                    low=percentile_interval(draws)[0], high=percentile_interval(draws)[1],
                    p=p, p_holm=p, test=PERMUTATION if name == SCORE else BOOTSTRAP,
                    text=first.text,
                )
            )  # fmt: skip
    return _corrected(found)


def _find_patients(runs: Sequence[ComparedRun]) -> IntArray:
    """Return the patient of each image by the run that knows most: the one with the fewest.

    Older files do not tell which images are of one patient.
    """
    return min((run.data.patients for run in runs), key=lambda each: len(np.unique(each)))


def permutation_p(
    scores_a: FloatArray,
    scores_b: FloatArray,
    patients: IntArray,
    n_draws: int,
    *,
    seed: int = SEED,
) -> float:
    """Test by swapping two runs' outputs whether their means differ.

    For each patient a coin says whether the outputs of all of their images change sides. Which
    images count is swapped with the scores.

    Args:
        scores_a, scores_b: (I,) NaN where an image does not count.
        patients: (I,) the patient that each image belongs to.

    Returns:
        The share of swaps with a difference as large in either direction, the data themselves
        counted as one; NaN where no image counts for one of the runs.
    """
    _, rows = np.unique(patients, return_inverse=True)
    sums = [np.bincount(rows, weights=np.nan_to_num(scores)) for scores in (scores_a, scores_b)]
    counts = [np.bincount(rows, weights=~np.isnan(scores)) for scores in (scores_a, scores_b)]
    own = _difference_of_means(sums[0].sum(), counts[0].sum(), sums[1].sum(), counts[1].sum())
    if np.isnan(own):
        return float("nan")
    rng = np.random.default_rng(seed)
    n_as_large = n_defined = 0
    for start in range(0, n_draws, DRAWS_AT_ONCE):
        size = min(DRAWS_AT_ONCE, n_draws - start), len(sums[0])
        swapped = rng.integers(0, 2, size=size).astype(np.float64)  # (D, P)
        moved, n_moved = swapped @ (sums[1] - sums[0]), swapped @ (counts[1] - counts[0])
        values = _difference_of_means(
            sums[0].sum() + moved, counts[0].sum() + n_moved,
            sums[1].sum() - moved, counts[1].sum() - n_moved,
        )  # fmt: skip
        n_defined += int((~np.isnan(values)).sum())
        n_as_large += int((np.abs(values) >= abs(own) - ROUNDING).sum())
    return (1 + n_as_large) / (1 + n_defined)


def bootstrap_p(draws: FloatArray) -> float:
    """Test by the draws of a difference whether it is 0.

    Args:
        draws: (D,) NaN where it is undefined; these are left out.

    Returns:
        Twice the share of draws on the less frequent side of 0, the data themselves counted as
        one, at most 1.
    """
    defined = draws[~np.isnan(draws)]
    n_other = min((defined <= ROUNDING).sum(), (defined >= -ROUNDING).sum())
    return min(1.0, 2 * (1 + int(n_other)) / (1 + len(defined)))


def correct_by_holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's method; the order stays."""
    values = np.array(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(raised, 1.0)
    return [float(value) for value in corrected]


def _draw_numbers(
    run: ComparedRun,
    weights: IntArray,
    box_numbers: Sequence[Number[DrawnBoxes]],
    image_numbers: Sequence[Number[DrawnImages]],
) -> Mapping[str, _Drawn]:
    """Compute all numbers that a run can give, by their names, on the data and on each draw."""
    weights = np.concatenate([np.ones((1, weights.shape[1]), dtype=np.int64), weights])
    counted = ~np.isnan(run.image_scores)
    means = ratio(weights @ np.nan_to_num(run.image_scores), weights @ counted)
    values = {SCORE: [means]}
    texts = {SCORE: SCORE_TEXT}
    ranked = rank_boxes(run.data) if run.data.is_complete and box_numbers else None
    for start in range(0, len(weights), DRAWS_AT_ONCE):
        chunk = weights[start : start + DRAWS_AT_ONCE]
        jobs: list[tuple[str, Number[Any], Any]] = []
        if ranked is not None:
            boxes = DrawnBoxes(ranked, chunk)
            jobs += [(number.name, number, boxes) for number in box_numbers]
        for score, probs in run.data.image_scores.items():
            images = DrawnImages(probs, run.data.has_opacity, chunk)
            jobs += [(f"{number.name} ({score})", number, images) for number in image_numbers]
        for name, number, drawn in jobs:
            values.setdefault(name, []).append(number.compute(drawn))
            texts[name] = number.text
    joined = {name: np.concatenate(parts) for name, parts in values.items()}
    return {name: _Drawn(float(own[0]), own[1:], texts[name]) for name, own in joined.items()}


def _corrected(found: Sequence[Difference]) -> list[Difference]:
    """Correct the p values of each number for the pairs that it compares."""
    corrected = list(found)
    for name in dict.fromkeys(each.number for each in found):
        rows = [i for i, each in enumerate(found) if each.number == name]
        for row, p in zip(rows, correct_by_holm([found[i].p for i in rows]), strict=True):
            corrected[row] = found[row]._replace(p_holm=p)
    return corrected


def _difference_of_means(sum_a: Any, n_a: Any, sum_b: Any, n_b: Any) -> FloatArray:  # noqa: ANN401
    return ratio(np.asarray(sum_a), np.asarray(n_a)) - ratio(np.asarray(sum_b), np.asarray(n_b))
