"""Several processes as one: who is who, and how they add up and collect what they found.

`torchrun` starts the processes and tells each its place; without it there is one, and nothing of
PyTorch's distributed package is used.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from src.system.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that work together.

    Attributes:
        rank: its number, from 0.
        count: of all processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Say whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over all processes; each gets the sum."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def spread(self, values: Tensor) -> None:
        """Give every process the numbers of the first, in place."""
        if self.count > 1:
            dist.broadcast(values, src=0)

    def gather(self, value: T) -> list[T]:
        """Collect a value of every process, by rank; each gets the list."""
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]


ALONE = Processes()


@contextmanager
def joined_processes(device_name: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, until the block ends.

    A network that is trained by several processes holds their group. If it is the last to hold it,
    its end waits for the group's threads, which may wait for Python's lock in turn: for ever. So
    what the functions that the block called left behind, also by an error, is freed before the
    group ends. The block itself must not hold such a network.

    Args:
        device_name: the --device flag; processes on GPUs talk by NCCL, on the CPU by gloo.

    Raises:
        InputError: torchrun's variables are incomplete, or a GPU is named for all processes.
    """
    count = _from_environment("WORLD_SIZE", 1)
    if count == 1:
        yield ALONE
        return
    rank, local_rank = (_from_environment(name, None) for name in ("RANK", "LOCAL_RANK"))
    on_cuda = device_name != "cpu" and torch.cuda.is_available()
    if device_name not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device_name}: under torchrun it is auto, cpu or cuda")
    if on_cuda:
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f"torchrun started process {local_rank} of this machine, which has "
                f"{torch.cuda.device_count()} GPUs; --nproc_per_node is at most that"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield Processes(rank, count)
    except BaseException as error:
        _forget_frames(error)
        raise
    finally:
        gc.collect()
        dist.destroy_process_group()


def _forget_frames(error: BaseException | None) -> None:
    """Free the local variables of the functions that an error, and those before it, ended."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _from_environment(name: str, default: int | None) -> int:
    text = os.environ.get(name, default)
    try:
        return int(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{name}={text!r}: torchrun sets it to a number") from None
