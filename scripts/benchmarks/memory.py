"""How much of a GPU's memory work takes at most."""

from __future__ import annotations

from collections.abc import Callable

import torch

Work = Callable[[], object]


def gpu_peak(make: Callable[[], Work]) -> tuple[Work, int]:
    """Make some work and run it on the GPU, whatever else lies there.

    Returns:
        The work, warm, and the bytes that it takes at most by itself.

    Raises:
        OutOfMemoryError: it does not fit.
    """
    before = torch.cuda.memory_allocated()
    work = make()
    work()  # cuDNN tries its algorithms, Adam makes its state
    torch.cuda.reset_peak_memory_stats()
    work()
    return work, torch.cuda.max_memory_allocated() - before
