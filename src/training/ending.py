"""When a training ends: after all epochs, or when patience runs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from signal import Signals
from typing import NamedTuple

from src.experiments.experiment_file import BY_PATIENCE
from src.experiments.history import epochs_since_least
from src.system.distributed import Processes
from src.system.processes import StopRequest

FOLLOWED_LOSS = "regression"  # of validation: by the plateau of the rate (the paper), and patience


class Ending(NamedTuple):
    """Why a training has no epoch left.

    Attributes:
        by: for experiment.json.
        words: the same for readers.
    """

    by: str
    words: str


def find_ending(
    n_done: int, history: Sequence[Mapping[str, float]], n_epochs: int, patience: int | None
) -> Ending | None:
    """Find out what ends a training; None as long as an epoch is left.

    Args:
        n_done: epochs that are done.
        history: a row for each of them; the first ones may be unknown.
        n_epochs: of the whole training.
        patience: epochs without a new least loss after which it ends; None never ends it.
    """
    if n_done >= n_epochs:
        return Ending("all epochs", f"all {n_done} epochs are done")
    n_since = epochs_since_least(history, f"valid_{FOLLOWED_LOSS}")
    if patience is None or n_since < patience:
        return None
    return Ending(
        BY_PATIENCE,
        f"ended by --patience {patience} after epoch {n_done - 1}: the validation {FOLLOWED_LOSS} "
        f"loss was least in epoch {n_done - 1 - n_since}; --resume with a larger --patience, or "
        f"without it, goes on",
    )


def find_signal(stop: StopRequest, processes: Processes) -> Signals | None:
    """Return the signal that one of the processes received; None where none did."""
    received = [number for number in processes.gather(stop.received) if number is not None]
    return received[0] if received else None
