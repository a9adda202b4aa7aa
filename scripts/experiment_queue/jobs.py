"""Jobs: a training and its scores, as the ordinary commands that make them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.experiment_queue.plan import Grid, PlanError
from src.actions.flags import Flags, parse_flags
from src.actions.resolve import choose_experiment, choose_run, find_changes
from src.experiments.run_progress import RunProgress, find_progress
from src.experiments.runs import Run
from src.scoring.sweep import ScoresError, load_sweep
from src.system.errors import InputError

RUNNER = Path(__file__).resolve().parents[2] / "src" / "train_runner.py"

Command = tuple[str, ...]  # the words of a command line


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training and the scores of its epochs.

    Attributes:
        run: whose files they are.
        changes: settings of the experiment that the training changes.
        seed: of the training; None leaves it open.
        train, check_metric: the commands that make them.
    """

    run: Run
    changes: Mapping[str, object]
    seed: int | None
    train: Command
    check_metric: Command

    def find_progress(self) -> RunProgress:
        """Find out how far the training is.

        Raises:
            InputError: the run was trained in another way.
        """
        return find_progress(self.run, self.changes, self.seed)

    def commands_left(self) -> list[Command]:
        """Return the commands that have something to do, by the run's own files.

        Raises:
            InputError: the run was trained in another way.
        """
        if self.find_progress().n_left:
            return [self.train, self.check_metric]
        return [] if self._is_scored() else [self.check_metric]

    def is_done(self) -> bool:
        """Say whether nothing is left to do, and the run is the one that is wanted."""
        try:
            return not self.commands_left()
        except InputError:
            return False

    def _is_scored(self) -> bool:
        try:
            scored = load_sweep(self.run.scores_path).epochs
        except ScoresError:
            return False
        return set(self.run.epochs_with_predictions()) <= set(scored)


def make_jobs(grids: Iterable[Grid], *, data_dir: Path, output_dir: Path) -> list[Job]:
    """Make the jobs of a plan; one that occurs twice is made once.

    Raises:
        InputError: train_runner would refuse a command, or two of them would train one run.
    """
    jobs: dict[Run, Job] = {}
    for grid in grids:
        for model, fold, seed in grid.trainings():
            job = _make_job(grid, model, fold, seed, data_dir.absolute(), output_dir.absolute())
            if jobs.setdefault(job.run, job) != job:
                raise PlanError(f"{job.run.name}: two different trainings would have this name; "
                                f"give one of them a tag (--run, in a plan run)")  # fmt: skip
    return list(jobs.values())


def _make_job(
    grid: Grid, model: str, fold: int, seed: int | None, data_dir: Path, output_dir: Path
) -> Job:
    """Write the commands of a training, as train_runner's own parser understands them."""
    tag = "_".join(part for part in (grid.run, f"seed{seed}" * (seed is not None)) if part)
    run_words = ["--model", model, "--fold", str(fold), "--output-dir", str(output_dir)]
    if tag:
        run_words += ["--run", tag]
    words = ["--data-dir", str(data_dir), *grid.settings_words(), *grid.flags, "--resume"]
    if seed is not None:
        words += ["--seed", str(seed)]

    def parse(action: str, words: list[str]) -> tuple[Command, Flags]:
        words = ["--action", action, *run_words, *words]
        flags = parse_flags(words, data_dir=data_dir, output_dir=output_dir)
        return (sys.executable, str(RUNNER), *words), flags

    train, flags = parse("train", words)
    choose_experiment(flags)  # what is wrong with it is wrong with the plan
    check_metric, _ = parse("check_metric", ["--debug"] if flags.debug else [])
    return Job(
        run=choose_run(flags),
        changes=find_changes(flags),
        seed=flags.seed,
        train=train,
        check_metric=check_metric,
    )
