"""How much of a queue is left, and how long that will take by what has been trained so far."""

from __future__ import annotations

from src.experiments.runs import Run

UNITS = (("hours", 3600.0), ("minutes", 60.0))  # in seconds


class Forecast:
    """Epochs that are left, and the time of those that were trained.

    Attributes:
        epochs_left: of each run that is not done.
    """

    def __init__(self, n_slots: int, epoch_seconds: float | None = None) -> None:
        """Begin without knowing any epoch's time.

        Args:
            n_slots: trainings that run side by side.
            epoch_seconds: an epoch's expected time, until one is measured; None if nobody knows.
        """
        self.epochs_left: dict[Run, int] = {}
        self._n_slots = n_slots
        self._epoch_seconds = epoch_seconds
        self._n_measured, self._seconds = 0, 0.0

    def add(self, n_epochs: int, seconds: float) -> None:
        """Count epochs that took a time, all together."""
        self._n_measured += n_epochs
        self._seconds += seconds
        self._epoch_seconds = self._seconds / self._n_measured

    def __str__(self) -> str:
        left = self.epochs_left.values()
        text = f"{sum(left)} epochs left"
        if self._epoch_seconds is None or not sum(left):
            return text
        # A training takes one slot, however many are free.
        n_in_turn = max(sum(left) / self._n_slots, *left)
        return f"{text}, about {write_duration(n_in_turn * self._epoch_seconds)}"


def write_duration(seconds: float) -> str:
    """Write a duration for people, in the largest unit of which there are two."""
    for unit, length in UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
