"""The exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Keeps the average of a network's weights over the latest steps, beside the weights.

    Batch norm's statistics are averaged too, so that they fit the averaged weights; its counters
    are not.

    Attributes:
        n_steps: whose weights are in the average. It begins with those after the first step, and
            at step n keeps at most (1 + n) / (10 + n) of itself, so that it soon forgets them.
        values: the average by the names of the network's state dict; empty before the first step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Watch a network that has its place in memory.

        Args:
            decay: share of itself that the average keeps in a step.
        """
        self.decay = decay
        self.n_steps = 0
        self.values: dict[str, Tensor] = {}
        self._weights = {
            name: value for name, value in model.state_dict().items() if value.is_floating_point()
        }

    def update(self) -> None:
        """Take in the weights after a step."""
        if not self.n_steps:
            self.values = {name: weight.clone() for name, weight in self._weights.items()}
        else:
            decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
            average, weights = list(self.values.values()), list(self._weights.values())
            get_ema_multi_avg_fn(decay)(average, weights, None)
        self.n_steps += 1

    def load(self, n_steps: int, values: Mapping[str, Tensor]) -> None:
        """Go on from a saved average; one of other weights raises ValueError."""
        expected = self._weights if n_steps else {}
        if n_steps < 0 or values.keys() != expected.keys():
            raise ValueError("its average is of other weights")
        self.values = {name: tensor_like(own, values[name]) for name, own in expected.items()}
        self.n_steps = n_steps

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network hold the average in the block, and its own weights again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self.values.items():
            weight = self._weights[name]
            own = weight.clone()
            weight.copy_(average)
            average.copy_(own)


def tensor_like(own: Tensor, saved: Tensor) -> Tensor:
    """Copy a tensor from a file, into the order of memory of one of ours.

    In another order the same arithmetic may round differently.

    Raises:
        ValueError: it has another shape.
    """
    if saved.shape != own.shape:
        raise ValueError(f"of shape {tuple(saved.shape)}, not {tuple(own.shape)}")
    return torch.empty_like(own).copy_(saved)
