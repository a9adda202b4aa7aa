"""Jobs: a training and its scores, as the ordinary commands that make them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.experiment_queue.plan import PlanError, TrainingGrid
from src.actions.flags import Flags, parse_flags
from src.actions.resolve import change_experiment, choose_run, find_changes, name_changed
from src.experiments.experiment import Experiment
from src.experiments.run_progress import RunProgress, find_progress
from src.experiments.runs import Run
from src.experiments.table import get_experiment
from src.scoring.sweep import ScoresError, load_sweep
from src.system.errors import InputError

RUNNER = Path(__file__).resolve().parents[2] / "src" / "train_runner.py"

# What a training's flags may not say: both commands of a job must be about the same run.
RESERVED = ("--action", "--list-models", "--model", "--fold", "--folds", "--run", "--set",
            "--data-dir", "--output-dir")  # fmt: skip

Command = tuple[str, ...]  # the words of a command line


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training and the scores of its epochs.

    Attributes:
        run: whose files they are.
        experiment: what is trained.
        seed: of the training; None leaves it open.
        train, check_metric: the commands that make them.
    """

    run: Run
    experiment: Experiment
    seed: int | None
    train: Command
    check_metric: Command

    def find_progress(self) -> RunProgress:
        """Find out how far the training is.

        Raises:
            InputError: the run was trained in another way.
        """
        return find_progress(self.run, self.experiment, self.seed)

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


def make_jobs(grids: Iterable[TrainingGrid], *, data_dir: Path, output_dir: Path) -> list[Job]:
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
    grid: TrainingGrid, model: str, fold: int, seed: int | None, data_dir: Path, output_dir: Path
) -> Job:
    """Write the commands of a training, as train_runner's own parser understands them."""
    _check_flags(grid)
    run_words = ["--model", model, "--fold", str(fold), "--output-dir", str(output_dir)]
    words = ["--data-dir", str(data_dir), *grid.settings_words(), *grid.flags, "--resume"]
    tag = grid.run or name_changed(_parse_training(run_words + words)).run
    if seed is not None:
        words += ["--seed", str(seed)]
        tag = f"{tag}_seed{seed}" if tag else f"seed{seed}"
    if tag:
        run_words += ["--run", tag]
    flags = _parse_training(run_words + words)
    return Job(
        run=choose_run(flags),
        experiment=change_experiment(get_experiment(model), find_changes(flags)),
        seed=flags.seed,
        train=_command("train", run_words + words),
        check_metric=_command("check_metric", run_words + ["--debug"] * flags.debug),
    )


def _check_flags(grid: TrainingGrid) -> None:
    reserved = (*RESERVED, "--seed") if grid.seeds else RESERVED
    for word in grid.flags:
        name = word.partition("=")[0]
        if name in reserved:
            raise PlanError(f"{name} cannot be one of the flags of every training, behind -- or in "
                            f"a plan's flags: the queue itself says what is trained, and "
                            f"where")  # fmt: skip


def _command(action: str, words: Sequence[str]) -> Command:
    return (sys.executable, str(RUNNER), "--action", action, *words)


def _parse_training(words: Sequence[str]) -> Flags:
    """Read the flags of a training, which name its folders."""
    return parse_flags(["--action", "train", *words], data_dir=Path(), output_dir=Path())
