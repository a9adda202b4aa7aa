"""Plans: which experiments, folds, seeds and settings are trained; from TOML or a command line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from src.structures import MAX_FOLDS
from src.system.errors import InputError
from src.system.files import read_bytes
from src.system.records import MAX_CAUSE, build_record, check_fields, cut_text, show_value

MAX_PLAN_BYTES = 2**20
TABLE = "experiments"  # a plan is an array of tables of this name


class PlanError(InputError):
    """A plan that is missing or wrong."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Trainings: every model on every fold with every seed; the keys of a plan's table.

    Attributes:
        model: names of experiments.
        folds: that are held out for validation.
        seeds: of all random numbers, each a run of its own; none leaves train_runner's own.
        run: tells these runs from others of the same experiments.
        set: field of the experiment -> its value, in place of the experiment's own.
        flags: more words of the training's command line.
    """

    model: tuple[str, ...]
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = ()
    run: str = ""
    set: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: one cannot be used.
        """
        check_fields(self)
        for name in ("model", "folds"):
            if not getattr(self, name):
                raise InputError(f"{name} is empty")
        wrong = [fold for fold in self.folds if not 0 <= fold < MAX_FOLDS]
        if wrong:
            raise InputError(f"folds cannot hold {wrong[0]}; they are 0 to {MAX_FOLDS - 1}")

    def changed(self, run: str, settings: Mapping[str, Any], flags: Sequence[str]) -> Grid:
        """Return the grid with a tag before its own, and settings and flags behind them."""
        tag = "_".join(part for part in (run, self.run) if part)
        return replace(self, run=tag, set={**self.set, **settings}, flags=(*self.flags, *flags))

    def trainings(self) -> Iterator[tuple[str, int, int | None]]:
        """Yield model, fold and seed of each training."""
        for model in self.model:
            for seed in self.seeds or (None,):
                for fold in self.folds:
                    yield model, fold, seed

    def settings_words(self) -> list[str]:
        """Return the words of a command line that change the experiment's settings."""
        pairs = [f"{name}={_as_word(value)}" for name, value in self.set.items()]
        return ["--set", *pairs] if pairs else []


def read_plan(path: Path) -> list[Grid]:
    """Read the tables `[[experiments]]` of a TOML file.

    Raises:
        PlanError: the file is missing, is no TOML, or has a key or a value that is wrong.
    """
    try:
        content = tomllib.loads(read_bytes(path, MAX_PLAN_BYTES, PlanError).decode())
    except (ValueError, RecursionError) as error:
        if isinstance(error, PlanError):
            raise
        cause = cut_text(str(error), MAX_CAUSE)
        raise PlanError(f"{path}: not a readable TOML file: {cause}") from error
    _check_keys(path, content, [TABLE])
    tables = content.get(TABLE)
    if not isinstance(tables, list) or not tables:
        raise PlanError(f"{path}: holds no table [[{TABLE}]]")
    return [_read_table(f"{path}: [[{TABLE}]] {n}", table) for n, table in enumerate(tables, 1)]


def _read_table(place: str, table: object) -> Grid:
    if isinstance(table, dict):
        _check_keys(place, table, [each.name for each in fields(Grid)])
    try:
        return build_record(Grid, table)
    except ValueError as error:
        raise PlanError(f"{place}: {error}") from error


def _check_keys(place: object, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=2) or known
            raise PlanError(f"{place}: unknown key {show_value(key)}; did you mean "
                            f"{' or '.join(near)}?")  # fmt: skip


def _as_word(value: object) -> str:
    """Write a value as a flag takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_as_word, value))
    return str(value)
