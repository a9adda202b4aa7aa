"""How far the training of a run has come, by the run's own files; needs no PyTorch."""

from __future__ import annotations

from typing import NamedTuple

from src.experiments.experiment import Experiment, find_changed
from src.experiments.experiment_file import BY_PATIENCE, read_stored_training
from src.experiments.history import read_history
from src.experiments.runs import Run, read_description
from src.system.errors import InputError


class RunProgress(NamedTuple):
    """Epochs of a training.

    Attributes:
        n_done: that are trained, validated and saved.
        n_epochs: of the whole training.
    """

    n_done: int
    n_epochs: int

    @property
    def n_left(self) -> int:
        """Return how many epochs are left; a training may have gone beyond its end."""
        return max(0, self.n_epochs - self.n_done)

    def __str__(self) -> str:
        return f"{self.n_done} of {self.n_epochs} epochs"


def find_progress(run: Run, experiment: Experiment, seed: int | None = None) -> RunProgress:
    """Find out how far a training is, and that it is the one that is wanted.

    Args:
        experiment: what is to be trained.
        seed: of the training; None takes any.

    Raises:
        InputError: the run was trained in another way, or a file of it cannot be used.
    """
    if not run.experiment_path.exists():
        return RunProgress(0, experiment.n_epochs)
    stored = read_stored_training(run.experiment_path)
    changed = [
        (name, getattr(stored.settings, name), getattr(experiment, name))
        for name in find_changed(stored.settings, experiment)
    ]
    if seed not in (None, stored.seed):
        changed.append(("seed", stored.seed, seed))
    for name, its, wanted in changed:
        raise InputError(
            f"{run.dir}: was trained with {name} {its}, not {wanted}; take another --run"
        )
    n_done = count_epochs(run)
    is_ended = read_description(run.experiment_path).get("ended_by") == BY_PATIENCE
    return RunProgress(n_done, n_done if is_ended else experiment.n_epochs)


def count_epochs(run: Run) -> int:
    """Count the epochs that are done: `history.csv` gets its row last, behind the epoch's files.

    Raises:
        HistoryError: the file is something else.
    """
    if not run.history_path.exists():
        return 0
    epochs = read_history(run.history_path, [])["epoch"]
    return int(epochs.max()) + 1 if len(epochs) else 0
