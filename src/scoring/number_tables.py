"""Numbers that papers quote as files and as lines for a reader, of all images and of groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from src.scoring.quoted_numbers import NumberResult, count_cases
from src.scoring.scored_images import ScoredImages
from src.scoring.subgroups import SMALL, Group
from src.scoring.sweep import AXES, Choice
from src.system.files import write_csv

SETTING_HEADER = tuple(AXES)
GROUP_HEADER = ("column", "group", "images", "images_with_opacity", "is_small")
# What a line of a group shows; its file has all.
SHOWN = (
    ("score", ""),
    ("ap_50", ""),
    ("froc", ""),
    ("auroc", "global head"),
    ("auroc", "best box"),
)
WITHOUT_WEAK = (
    "these predictions were saved without weaker boxes, so that no average precision and no FROC "
    "can be given; generate_predictions --overwrite saves them"
)


def write_numbers(path: Path, results: Sequence[NumberResult], choice: Choice) -> None:
    """Write a row for each number; a cell is empty where one is undefined.

    Args:
        choice: the epoch and the setting that they are of, which every row names.
    """
    setting = _setting_of(choice)
    write_csv(
        path,
        (*NumberResult._fields, *SETTING_HEADER),
        ([*_as_texts(result), *setting] for result in results),
    )


def write_group_numbers(path: Path, groups: Sequence[Group], choice: Choice) -> None:
    """Write a row for each number of each group; see `write_numbers`."""
    setting = _setting_of(choice)
    write_csv(
        path,
        (*GROUP_HEADER, *NumberResult._fields, *SETTING_HEADER),
        (
            [*_cells_of(group), *_as_texts(result), *setting]
            for group in groups
            for result in group.results
        ),
    )


def describe_numbers(data: ScoredImages, results: Sequence[NumberResult]) -> Iterator[str]:
    """Yield a table of the numbers, after a line of what they were computed from."""
    yield ", ".join(f"{count} {what}" for what, count in count_cases(data).items())
    if not data.is_complete:
        yield WITHOUT_WEAK
    for result in results:
        yield f"{_name(result):30} {_value(result):26} {result.text}"


def describe_groups(groups: Sequence[Group]) -> Iterator[str]:
    """Yield some numbers of each group, and mark groups that are too small for them."""
    for group in groups:
        mark = f"  (small: fewer than {SMALL})" if group.is_small else ""
        yield (
            f"{group.column} {group.name}: {group.n_images} images, {group.n_opacities} with an "
            f"opacity{mark}"
        )
        known = {(result.name, result.image_score): result for result in group.results}
        for key in SHOWN:
            if key in known and not np.isnan(known[key].value):
                yield f"  {_name(known[key]):28} {_value(known[key])}"


def _setting_of(choice: Choice) -> tuple[str | int | float, ...]:
    chosen = choice.postprocess
    return choice.epoch, chosen.gate, chosen.shrink, chosen.nms, chosen.threshold


def _cells_of(group: Group) -> tuple[str | int, ...]:
    return group.column, group.name, group.n_images, group.n_opacities, int(group.is_small)


def _name(result: NumberResult) -> str:
    return f"{result.name} ({result.image_score})" if result.image_score else result.name


def _value(result: NumberResult) -> str:
    value, low, high = (
        "-" if np.isnan(number) else f"{number:.4f}"
        for number in (result.value, result.low, result.high)
    )
    return f"{value:>7}  {low:>7} to {high}"


def _as_texts(result: NumberResult) -> tuple[str, ...]:
    return tuple(
        value if isinstance(value, str) else "" if np.isnan(value) else f"{value:.6f}"
        for value in result
    )
