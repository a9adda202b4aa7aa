"""This process and its machine: threads, memory, and the processes that it has started."""

import atexit
import ctypes
import os
import signal
from functools import cache

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # parameters of mallopt, malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes; glibc takes no more
DEFAULT_THRESHOLD = 128 * 2**10  # bytes, of both
KEPT = 2**31 - 1  # bytes


def tune_process() -> None:
    """Do all of it, before torch is imported."""
    wait_passively()
    keep_freed_memory()


@cache
def end_workers_at_exit() -> None:
    """Let no worker process keep this one from ending.

    An error keeps a data loader and its workers alive, for its traceback refers to them. At the
    end Python asks them to go by SIGTERM, which they leave to the main process, and would wait for
    ever.
    """
    from multiprocessing import active_children, util  # noqa: F401 - what is first comes last

    @atexit.register
    def kill_workers() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler takes it for an accident
        for process in active_children():
            process.kill()


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait; call before torch is imported.

    By default they spin. On a machine that also runs data loader workers, or another user's work,
    a spinning thread keeps the one it waits for off the core: a training step on two busy cores
    took 0.6 to 1.2 s asleep, 1.3 to 9.5 s spinning. A setting of the user's own is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_freed_memory() -> None:
    """Let the C library keep what was freed for the next layer, instead of asking the kernel.

    Fresh pages are zeroed by the kernel when they are first touched, layer after layer.
    """
    _set_thresholds(LARGEST_MMAP_THRESHOLD, KEPT)


def return_freed_memory() -> None:
    """Go back to glibc's default."""
    _set_thresholds(DEFAULT_THRESHOLD, DEFAULT_THRESHOLD)


def _set_thresholds(mmap: int, trim: int) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # a C library without it, such as musl or macOS's
        return
    mallopt(MMAP_THRESHOLD, mmap)
    mallopt(TRIM_THRESHOLD, trim)
