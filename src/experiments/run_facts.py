"""How runs were made, as their own files say, and which folders are runs.

The table of experiments is not asked: an experiment may have left it, or be another one by now.
"""

from __future__ import annotations

import shlex
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.experiments.experiment import with_defaults
from src.experiments.runs import read_description, runs_at
from src.system.errors import InputError
from src.system.files import real_path
from src.system.records import show_value

SHOWN_DIGITS = 12  # of a fingerprint; enough to tell data sets apart
RUN_FILES = ("history.csv", "scores.npz", "predictions", "checkpoints")


@dataclass(frozen=True, eq=False, kw_only=True)
class RunFacts:
    """How a run was made; what its experiment.json does not say is None, or empty.

    Attributes:
        run_dir: the run's folder.
        model: the experiment; of an ensemble all of them with + between.
        tag: of the run.
        fold: that was held out for validation.
        seed: of the training.
        settings: all that shaped the training beside these: fields of the experiment, precision,
            first digits of the data's fingerprint, the weights that it began with.
        date: when it began.
        ended_by: what ended it; "" where nothing did, as with one that was killed.
        command: that it was made by, as it would be typed.
    """

    run_dir: Path
    model: str | None
    tag: str
    fold: int | None
    seed: int | None
    settings: Mapping[str, Hashable]
    date: str
    ended_by: str
    command: str


def read_run_facts(run_dir: Path) -> RunFacts:
    """Read what the experiment.json of a run says; an older one, or none, says less.

    Raises:
        InputError: the file is there, and is something else.
    """
    content = read_description(run_dir / "experiment.json")
    command, model = content.get("command"), content.get("model")
    words = command if isinstance(command, list) else []
    return RunFacts(
        run_dir=run_dir,
        model=model if isinstance(model, str) else None,
        tag=_as_text(content.get("tag")),
        fold=_as_int(content.get("fold")),
        seed=_as_int(content.get("seed")),
        settings=_read_settings(content),
        date=_as_text(content.get("date")),
        ended_by=_as_text(content.get("ended_by")),
        command=shlex.join(map(_as_text, words)),
    )


def _read_settings(content: Mapping[str, Any]) -> dict[str, Hashable]:
    stored = content.get("settings")
    if not isinstance(stored, dict):  # an ensemble has none of its own
        return {}
    weights = content.get("init_weights")
    beside = {
        "precision": content.get("precision"),
        "data": _as_text(content.get("data_fingerprint"))[:SHOWN_DIGITS],
        "init_weights": weights.get("path") if isinstance(weights, dict) else None,
    }
    return {name: _frozen(value) for name, value in {**with_defaults(stored), **beside}.items()}


def differing_settings(runs: Iterable[RunFacts]) -> list[str]:
    """Name the settings in which runs differ, in their order; runs without any do not count."""
    known = [run.settings for run in runs if run.settings]
    names = dict.fromkeys(name for settings in known for name in settings)
    absent = object()
    return [name for name in names if len({each.get(name, absent) for each in known}) > 1]


def find_runs(places: Iterable[Path]) -> list[Path]:
    """Find the runs among folders and below them, each once; a run holds no other.

    Args:
        places: the common name of folds stands for them, as in `runs_at`.

    Raises:
        InputError: a place is no folder, or holds no run.
    """
    found: dict[Path, Path] = {}
    for place in (folder for each in places for folder in runs_at(each)):
        if not place.is_dir():
            raise InputError(f"{place}: no such folder of a run, or of runs")
        runs = list(_runs_below(place))
        if not runs:
            raise InputError(f"{place}: holds no run; --action train makes one")
        for run_dir in runs:
            found.setdefault(real_path(run_dir), run_dir)
    return list(found.values())


def _runs_below(place: Path) -> Iterator[Path]:
    stack = [place]
    while stack:
        folder = stack.pop()
        if _is_run(folder):
            yield folder
        elif folder == place or not folder.is_symlink():  # which could lead around in a circle
            inner = sorted(path for path in folder.iterdir() if path.is_dir())
            stack.extend(reversed(inner))


def _is_run(folder: Path) -> bool:
    """Say whether a folder is a run's: what `--input` predicted has a description as well."""
    if any((folder / name).exists() for name in RUN_FILES):
        return True
    return "settings" in read_description(folder / "experiment.json")


def _as_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _frozen(value: object) -> Hashable:
    """Make a setting, of a JSON file or a default, one that can be compared; none is nested."""
    if isinstance(value, list | tuple):
        return tuple(part if isinstance(part, Hashable) else show_value(part) for part in value)
    return value if isinstance(value, Hashable) else show_value(value)
