"""Tables of runs: what differs between them, and what came of it; as columns, and as CSV files."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from src.experiments.run_facts import RunFacts, differing_settings
from src.experiments.run_groups import AverageOver, group_runs
from src.scoring.run_results import (
    Estimate,
    GroupResult,
    RunResult,
    Spread,
    summarise_group,
)
from src.system.files import write_csv

RESULTS = ("score", "honest_score", "ap_50", "epoch", "threshold", "epochs")
COSTS = ("seconds", "images_per_second", "peak_memory_mb")
GROUP_RESULTS = ("out_of_fold", "honest_score", "score", "ap_50", "seconds", "note")


class RunRow(NamedTuple):
    """A run, by a name of its own, and what came of it."""

    name: str
    facts: RunFacts
    result: RunResult


class GroupRow(NamedTuple):
    """Runs that belong together, and what came of them."""

    name: str
    runs: tuple[RunRow, ...]
    result: GroupResult


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: in the file.
        cells: None, NaN or "" where a run's files do not say.
    """

    name: str
    cells: list[Hashable]


def group_rows(runs: Sequence[RunRow], average_over: AverageOver) -> list[GroupRow]:
    """Put runs together as `group_runs` does, and summarise what came of them."""
    by_facts = {run.facts: run for run in runs}
    rows = []
    for group in group_runs(list(by_facts), average_over):
        own = tuple(by_facts[facts] for facts in group.runs)
        result = summarise_group(group, [run.result for run in own])
        rows.append(GroupRow(group.name, own, result))
    return rows


def run_columns(runs: Sequence[RunRow]) -> list[Column]:
    """Lay out a row for each run: how it differs from the others, and what came of it."""
    facts, results = [run.facts for run in runs], [run.result for run in runs]
    return [
        Column("run", [run.name for run in runs]),
        *_columns_of(facts, ("fold", "seed")),
        *_settings(facts, facts),
        *_columns_of(results, RESULTS),
        Column("n_epochs", [each.settings.get("n_epochs") for each in facts]),
        *_columns_of(facts, ("ended_by",)),
        *_columns_of(results, COSTS),
        *_columns_of(facts, ("date", "command")),
    ]


def group_columns(groups: Sequence[GroupRow]) -> list[Column]:
    """Lay out a row for each group of runs that belong together."""
    facts = [run.facts for group in groups for run in group.runs]
    return [
        Column("group", [group.name for group in groups]),
        Column("n_runs", [len(group.runs) for group in groups]),
        *_settings(facts, [group.runs[0].facts for group in groups]),
        *_columns_of([group.result for group in groups], GROUP_RESULTS),
        Column("runs", [shlex.join(run.name for run in group.runs) for group in groups]),
    ]


def write_columns(path: Path, columns: Iterable[Column]) -> None:
    """Write a table; intervals and deviations have columns of their own, the unknown is empty."""
    flat = [each for column in columns for each in _flatten(column)]
    rows = zip(*(map(_as_text, column.cells) for column in flat), strict=True)
    write_csv(path, [column.name for column in flat], rows)


def is_unknown(cell: Hashable) -> bool:
    """Say whether a cell holds nothing."""
    if isinstance(cell, Estimate | Spread):
        return is_unknown(cell[0])
    return cell in (None, "") or (isinstance(cell, float) and math.isnan(cell))


def _settings(runs: Sequence[RunFacts], shown: Sequence[RunFacts]) -> list[Column]:
    """Return a column for each setting in which runs differ; the number of epochs is a result.

    Args:
        shown: those that have a row.
    """
    names = [name for name in differing_settings(runs) if name != "n_epochs"]
    return [Column(name, [run.settings.get(name) for run in shown]) for name in names]


def _columns_of(records: Sequence[object], names: Iterable[str]) -> Iterator[Column]:
    for name in names:
        yield Column(name, [getattr(record, name) for record in records])


def _flatten(column: Column) -> list[Column]:
    """Lay out the parts of numbers beside each other; the first one has the number's name."""
    kind = type(column.cells[0])
    if kind not in (Estimate, Spread):
        return [column]
    parts = zip(*column.cells, strict=True)
    names = [column.name, *(f"{column.name}_{part}" for part in kind._fields[1:])]
    return [Column(name, list(part)) for name, part in zip(names, parts, strict=True)]


def _as_text(cell: Hashable) -> str:
    if is_unknown(cell):
        return ""
    if isinstance(cell, float):
        return f"{cell:.6g}"
    return cell if isinstance(cell, str) else json.dumps(cell)
