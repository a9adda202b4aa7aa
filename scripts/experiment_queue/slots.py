"""Where trainings run side by side: one on each GPU, or with a share of the CPU's cores."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

GPUS, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"
NO_GPU = ("", "-1", "NoDevFiles")  # CUDA ignores what follows one of them
TIMEOUT = 60  # seconds; a driver that wakes up takes some


class Slot(NamedTuple):
    """A place for one training at a time.

    Attributes:
        name: for the user.
        environment: variables that its commands run with, beside those of this process.
    """

    name: str
    environment: Mapping[str, str]


def make_slots(n_jobs: int | None, gpus: Sequence[str]) -> list[Slot]:
    """Make a slot for each training that runs at a time.

    Args:
        n_jobs: how many; None takes one for each GPU, and one where there is none.
        gpus: as `find_gpus` names them; they are dealt out in turn.
    """
    if gpus:
        names = [gpus[number % len(gpus)] for number in range(n_jobs or len(gpus))]
        return [Slot(f"GPU {name}", {GPUS: name}) for name in names]
    n_jobs = n_jobs or 1
    # Each process would take all cores: more threads than cores only wait for one another.
    n_threads = max(1, (os.cpu_count() or 1) // n_jobs)
    shared = {} if n_jobs == 1 or THREADS in os.environ else {THREADS: str(n_threads)}
    return [Slot("the CPU", shared)] * n_jobs


def find_gpus() -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES is to be for each GPU; PyTorch is not needed for it."""
    chosen = os.environ.get(GPUS)
    if chosen is not None:
        names = (name.strip() for name in chosen.split(","))
        return list(takewhile(lambda name: name not in NO_GPU, names))
    try:
        result = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in result.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]
