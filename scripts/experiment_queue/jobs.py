"""Jobs: a training and its scores, as the ordinary commands that make them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.experiment_queue.plan import Grid, PlanError
from src.actions.flags import Flags, parse_flags
from src.actions.resolve import change_experiment, choose_run, find_changes, name_changed
from src.experiments.run_progress import RunProgress, find_progress
from src.experiments.runs import Run
from src.experiments.table import get_experiment
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
    run_words = ["--model", model, "--fold", str(fold), "--output-dir", str(output_dir)]
    words = ["--data-dir", str(data_dir), *grid.settings_words(), *grid.flags, "--resume"]
    tag = grid.run or name_changed(_parse_training(run_words + words)).run
    if seed is not None:
        words += ["--seed", str(seed)]
        tag = f"{tag}_seed{seed}" if tag else f"seed{seed}"
    if tag:
        run_words += ["--run", tag]
    flags = _parse_training(run_words + words)
    changes = find_changes(flags)
    change_experiment(get_experiment(model), changes)  # what is wrong with it, the plan has wrong
    return Job(
        run=choose_run(flags),
        changes=changes,
        seed=flags.seed,
        train=_command("train", run_words + words),
        check_metric=_command("check_metric", run_words + ["--debug"] * flags.debug),
    )


def _command(action: str, words: Sequence[str]) -> Command:
    return (sys.executable, str(RUNNER), "--action", action, *words)


def _parse_training(words: Sequence[str]) -> Flags:
    """Read the flags of a training, which name its folders."""
    return parse_flags(["--action", "train", *words], data_dir=Path(), output_dir=Path())
