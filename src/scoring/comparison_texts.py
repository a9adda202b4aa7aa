"""What a comparison of detectors says: lines for a reader, and rows of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from src.scoring.comparison import BOOTSTRAP, LEVEL, ComparedRun, Difference
from src.scoring.image_differences import ImageDifference

COLUMNS = ("number", "run_a", "run_b", "value_a", "value_b", "difference", "low", "high", "p",
           "p_holm", "test")  # fmt: skip
IMAGE_COLUMNS = ("patientId", "run_a", "run_b", "score_a", "score_b", "difference", "better")

ByPair = Mapping[tuple[int, int], Sequence[ImageDifference]]


def explain_missing(runs: Sequence[ComparedRun], names: Sequence[str]) -> Iterator[str]:
    """Say which numbers cannot be compared, and why.

    Args:
        names: of the runs, for the reader.
    """
    for run, name in zip(runs, names, strict=True):
        if not run.data.is_complete:
            yield (
                f"{name} was saved without weaker boxes: average precision and FROC are left out "
                f"of its comparisons; generate_predictions --overwrite saves them"
            )
    if len({run.is_thresholded for run in runs}) > 1:
        yield (
            "average precision and FROC are left out between a run and a submission, which holds "
            "only the boxes above its threshold"
        )
    elif runs[0].is_thresholded:
        yield "average precision and FROC are those of the boxes that were submitted, all of them"
    for score in dict.fromkeys(score for run in runs for score in run.data.image_scores):
        lacking = [
            name
            for run, name in zip(runs, names, strict=True)
            if score not in run.data.image_scores
        ]
        if lacking:
            yield f"no numbers of images by their score {score!r} for {', '.join(lacking)}"
    if not runs[0].data.has_opacity.any():
        yield "no image has a true box: most numbers are undefined and left out"


def explain_draws(differences: Sequence[Difference], n_draws: int) -> Iterator[str]:
    """Say what many numbers, or few draws for many pairs, mean for what is found."""
    yield "each number is tested on its own: of 20 that do not differ, about one seems to"
    n_pairs = len({(each.run_a, each.run_b) for each in differences})
    if any(each.test == BOOTSTRAP for each in differences):
        least = 2 * n_pairs / (n_draws + 1)
        if least > LEVEL:
            yield (
                f"with {n_pairs} pairs and {n_draws} draws no corrected p value can be below "
                f"{least:.2g}; more --draws are needed to show a difference"
            )


def describe_pairs(
    differences: Sequence[Difference], by_image: ByPair, letters: Sequence[str]
) -> Iterator[str]:
    """Write what came out as a short table for each pair of runs.

    Args:
        by_image: the images of each pair.
        letters: the runs' for short, by their rows.
    """
    corrected = " (corrected by Holm for the pairs)" if len(by_image) > 1 else ""
    for (a, b), images in by_image.items():
        first, second = letters[a], letters[b]
        yield ""
        wins = [sum(row.better == side for row in images) for side in (1, -1, 0)]
        yield (
            f"{first} against {second}: by image {first} is better in {wins[0]}, {second} in "
            f"{wins[1]}, equal in {wins[2]}"
        )
        yield f"{'':30} {first:>8} {second:>8}  {'diff.':>8}  95 % of draws        p{corrected}"
        for row in differences:
            if (row.run_a, row.run_b) == (a, b):
                yield (
                    f"{row.number:30} {row.value_a:8.4f} {row.value_b:8.4f}  {row.difference:+8.4f}"
                    f"  {row.low:+.4f} to {row.high:+.4f}  {row.p_holm:.4f}  "
                    f"{row.verdict(first, second)}"
                )


def number_rows(differences: Sequence[Difference], names: Sequence[str]) -> Iterator[list[str]]:
    """Write out the rows below `COLUMNS`; `names` are the runs'."""
    for each in differences:
        values = [_as_text(value) for value in (
            each.value_a, each.value_b, each.difference, each.low, each.high, each.p, each.p_holm
        )]  # fmt: skip
        yield [each.number, names[each.run_a], names[each.run_b], *values, each.test]


def image_rows(by_image: ByPair, names: Sequence[str], ids: Sequence[str]) -> Iterator[list[str]]:
    """Write out the rows below `IMAGE_COLUMNS`; `names` are the runs', `ids` the images'."""
    for (a, b), images in by_image.items():
        for row in images:
            values = [_as_text(value) for value in (row.score_a, row.score_b, row.difference)]
            yield [
                ids[row.image],
                names[a],
                names[b],
                *values,
                ("", names[a], names[b])[row.better],
            ]


def _as_text(value: float) -> str:
    """Write a number for a table; an empty cell where it is undefined."""
    return "" if np.isnan(value) else f"{value:.6g}"
