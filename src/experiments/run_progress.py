"""How far the training of a run has come, by the run's own files; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from src.experiments.experiment_file import read_stored_training
from src.experiments.history import read_history
from src.experiments.runs import Run
from src.experiments.table import get_experiment
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


def find_progress(run: Run, changes: Mapping[str, object], seed: int | None = None) -> RunProgress:
    """Find out how far a training is, and that it is the one that is wanted.

    Args:
        changes: settings that the training is to have in place of its experiment's own.
        seed: that it is to have; None takes any.

    Raises:
        InputError: the run was trained with other settings or another seed, a file of it cannot be
            used, or there is no such experiment.
    """
    if not run.experiment_path.exists():
        return RunProgress(0, replace(get_experiment(run.model), **changes).n_epochs)  # type: ignore[arg-type]
    stored = read_stored_training(run.experiment_path)
    wanted = {"seed": stored.seed if seed is None else seed, **changes}
    own = {"seed": stored.seed} | {name: getattr(stored.settings, name) for name in changes}
    n_epochs = wanted.get("n_epochs", stored.settings.n_epochs)
    if stored.settings.scheduler != "one_cycle":
        wanted.pop("n_epochs", None)  # only one-cycle depends on the length
    for name, value in wanted.items():
        if own[name] != value:
            raise InputError(
                f"{run.dir}: was trained with {name} {own[name]}, not {value}; take another --run"
            )
    assert isinstance(n_epochs, int)
    return RunProgress(count_epochs(run), n_epochs)


def count_epochs(run: Run) -> int:
    """Count the epochs that are done: `history.csv` gets its row last, behind the epoch's files.

    Raises:
        HistoryError: the file is something else.
    """
    if not run.history_path.exists():
        return 0
    epochs = read_history(run.history_path, [])["epoch"]
    return int(epochs.max()) + 1 if len(epochs) else 0
