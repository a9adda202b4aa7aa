"""Runs that belong together, such as the folds of a training, and names that tell runs apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from src.experiments.run_facts import RunFacts, read_run_facts
from src.experiments.runs import Run
from src.system.files import real_path

AverageOver = Literal["nothing", "folds", "seeds"]
AVERAGE_OVER: tuple[AverageOver, ...] = get_args(AverageOver)


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs that differ only in what is averaged over.

    Attributes:
        name: different for every group; that of its run where it has only one.
        runs: at least one.
    """

    name: str
    runs: tuple[RunFacts, ...]


def group_runs(runs: Sequence[RunFacts], average_over: AverageOver) -> list[RunGroup]:
    """Put runs together that differ only in what is averaged over, in the order of the first.

    Args:
        average_over: "nothing" leaves each run alone, "folds" joins runs of one folder that differ
            only in their fold, "seeds" those that differ in fold, seed and tag, wherever they lie.
    """
    groups: dict[Hashable, dict[str, RunFacts]] = {}
    for name, run in zip(distinct_names([run.run_dir for run in runs]), runs, strict=True):
        groups.setdefault(_key(run, average_over), {})[name] = run
    labels = [_label(members, average_over) for members in groups.values()]
    counts = Counter(labels)
    return [
        RunGroup(
            label if counts[label] == 1 else f"{label}, {next(iter(members))} first",
            tuple(members.values()),
        )
        for label, members in zip(labels, groups.values(), strict=True)
    ]


def load_groups(run_dirs: Iterable[Path], average_over: AverageOver) -> list[RunGroup]:
    """Read how runs were made, each once, and put them together as `group_runs` does.

    Raises:
        InputError: an experiment.json is something else.
    """
    different = {real_path(run_dir): run_dir for run_dir in reversed(list(run_dirs))}
    return group_runs(list(map(read_run_facts, reversed(different.values()))), average_over)


def distinct_names(run_dirs: Sequence[Path]) -> list[str]:
    """Name runs by their folders, with as many parents as it takes to tell them apart."""
    folders = [real_path(run_dir) for run_dir in run_dirs]
    n_parts = 1
    while len({folder.parts[-n_parts:] for folder in folders}) < len(set(folders)):
        n_parts += 1
    names = ["/".join(folder.parts[-n_parts:]) for folder in folders]
    n_before = [names[:i].count(name) for i, name in enumerate(names)]  # a folder given twice
    return [f"{name} ({n + 1})" if n else name for name, n in zip(names, n_before, strict=True)]


def _key(run: RunFacts, average_over: AverageOver) -> Hashable:
    """Return what runs of a group have in common."""
    if average_over == "nothing" or run.model is None:
        return real_path(run.run_dir)
    # Each fold may begin with weights of its own.
    settings = {**run.settings, "init_weights": run.settings.get("init_weights") is not None}
    shared = run.model, frozenset(settings.items())
    if average_over == "seeds":
        return shared
    return *shared, run.tag, run.seed, real_path(run.run_dir.parent)


def _label(members: Mapping[str, RunFacts], average_over: AverageOver) -> str:
    name, run = next(iter(members.items()))
    if len(members) == 1:
        return name
    tag, what = (run.tag, "folds") if average_over == "folds" else ("", "runs")
    return f"{Run(str(run.model), 0, tag, Path()).common_name}, {len(members)} {what}"
