"""How far an epoch of training has come: batches, mean losses, gradients, time; and its row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from src.structures import LOSS_NAMES, SHORT_LOSS_NAMES, Losses
from src.system.records import fits


def loss_sums(losses: Losses, n_images: int) -> Tensor:
    """Return the losses times the number of images, in the order of `LOSS_NAMES`, float64."""
    return torch.stack([losses.total(), *losses.parts()]).detach().double() * n_images


class RunningLosses:
    """The mean of the losses so far, over images."""

    def __init__(self, sums: Sequence[float] = (0.0,) * len(LOSS_NAMES), n_images: int = 0) -> None:
        self.sums = dict(zip(LOSS_NAMES, sums, strict=True))
        self.n_images = n_images

    def add(self, sums: Sequence[float], n_images: int) -> None:
        """Add the sums over `n_images` of the losses, in the order of `LOSS_NAMES`."""
        for name, value in zip(LOSS_NAMES, sums, strict=True):
            self.sums[name] += value
        self.n_images += n_images

    def means(self) -> dict[str, float]:
        return {name: total / max(1, self.n_images) for name, total in self.sums.items()}

    def __str__(self) -> str:
        means = zip(SHORT_LOSS_NAMES, self.means().values(), strict=True)
        return " ".join(f"{name} {mean:.4f}" for name, mean in means)


@dataclass(kw_only=True)
class Progress:
    """What a training needs to continue an epoch, beside weights, optimizer and learning rate.

    Attributes:
        epoch: from 0.
        n_batches: that were trained; a batch that several processes share counts once.
        learning_rate: at the epoch's start.
        running: losses so far.
        n_skipped: steps that were left out because their numbers were not finite.
        n_skipped_in_a_row: how many of the latest steps were left out.
        norm_sum: of the gradients before they were clipped, over the steps that were taken.
        n_norms: how many they are.
        seconds: that the batches took, without the files that are written between them.
        waited_seconds: of these, until the next batches were there.
    """

    epoch: int
    n_batches: int = 0
    learning_rate: float = 0.0
    running: RunningLosses = field(default_factory=RunningLosses)
    n_skipped: int = 0
    n_skipped_in_a_row: int = 0
    norm_sum: float = 0.0
    n_norms: int = 0
    seconds: float = 0.0
    waited_seconds: float = 0.0

    def add_norm(self, norm: float) -> None:
        """Add the gradient's norm; one that overflowed in half precision moved nothing."""
        if math.isfinite(norm):
            self.norm_sum += norm
            self.n_norms += 1

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return vars(self) | {"running": [*self.running.sums.values(), self.running.n_images]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        """Make the progress of which `state_dict` gave the state.

        An older version measured less: what its part of an epoch took is not known.

        Raises:
            TypeError, ValueError, KeyError: it is no such state.
        """
        measured = ("norm_sum", "n_norms", "seconds", "waited_seconds")
        state = dict.fromkeys(measured, math.nan if state["n_batches"] else 0) | state
        *sums, n_images = state["running"]
        plain = [value for name, value in state.items() if name != "running"]
        if not all(fits(value, float) for value in (*plain, *sums, n_images)):
            raise ValueError("its progress is not made of numbers")
        return cls(**(state | {"running": RunningLosses(sums, n_images)}))


def history_row(
    progress: Progress,
    validated: Mapping[str, float],
    *,
    valid_seconds: float,
    peak_memory: int,
) -> dict[str, float]:
    """Put together what history.csv and TensorBoard tell of an epoch.

    Args:
        progress: at the epoch's end.
        validated: mean losses of validation, by name.
        valid_seconds: that validation took.
        peak_memory: bytes that the process has taken at most so far, see `peak_memory`.
    """
    trained = progress.running.means()
    return {
        "epoch": progress.epoch,
        "learning_rate": progress.learning_rate,
        **{f"train_{name}": trained[name] for name in LOSS_NAMES},
        **{f"valid_{name}": validated[name] for name in LOSS_NAMES},
        "skipped_steps": progress.n_skipped,
        "gradient_norm": _ratio(progress.norm_sum, progress.n_norms),
        "seconds": progress.seconds + valid_seconds,
        "valid_seconds": valid_seconds,
        "images_per_second": _ratio(progress.running.n_images, progress.seconds),
        "waiting_share": _ratio(progress.waited_seconds, progress.seconds),
        "peak_memory_mb": peak_memory / 1e6,
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
