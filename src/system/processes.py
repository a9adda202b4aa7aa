"""This process, those that it starts, and the signals that ask it to stop.

Threads and memory of the process itself; reading many files in several processes, which end with
this one and survive a crash of one; Ctrl-C and SIGTERM as a wish that a program grants where it
can go on later.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from src.system.errors import InputError
from src.system.streams import open_streams

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # parameters of mallopt, malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes; glibc takes no more
DEFAULT_THRESHOLD = 128 * 2**10  # bytes, of both
KEPT = 2**31 - 1  # bytes
MAX_WORKERS = 8  # processes that read images by default; more wait for the disk


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


def process_peak() -> int:
    """Return the bytes of memory that this process has held at most, without those it started."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of what the system counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Remembers, inside its `with` blocks, that somebody wants the program to stop.

    The first signal is remembered, the second acts as it would without this: who is in a hurry
    presses Ctrl-C twice.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        """Wait for signals.

        Args:
            deadline: of `time.monotonic`; from then on the program should stop without one.
        """
        self.received: signal.Signals | None = None
        self.deadline = deadline
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Say whether a signal came, or the time is up."""
        return self.received is not None or time.monotonic() >= self.deadline

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


CHUNK = 16  # files that a process takes at a time
MIN_FILES = 256  # below, starting processes takes longer than the work

WHY_WORKERS_DIE = "memory ran out, or a decoder crashed"

Result = TypeVar("Result")


def map_files(
    read: Callable[..., Result], paths: Sequence[Path], *others: Sequence[Any], n_workers: int
) -> Iterator[Result]:
    """Yield what `read` gives for each path, in order.

    A process that dies takes its files along. All that is missing is then read again, one file at
    a time: that needs the least memory, and tells which file it is that nothing survives.

    Args:
        read: a function of a module, which other processes can import, or a partial of one.
        others: further arguments of `read`, one for each path.
        n_workers: processes; with 0 or 1, or few files, it is this one.

    Raises:
        InputError: reading a file kills the process that does it, or no process can be started.
    """
    if n_workers < 2 or len(paths) < MIN_FILES:
        yield from map(read, paths, *others)
        return
    n_done = 0
    with worker_errors():
        try:
            with worker_pool(n_workers) as pool:
                for result in pool.map(read, paths, *others, chunksize=CHUNK):
                    yield result
                    n_done += 1
        except BrokenProcessPool:
            with worker_pool(1) as pool:
                for path, *more in islice(zip(paths, *others, strict=True), n_done, None):
                    yield _read_alone(pool, read, path, *more)


@contextmanager
def worker_errors() -> Iterator[None]:
    """Turn worker processes that cannot be started, or that die, into one line.

    Raises:
        InputError: shared memory is read-only, there are too many processes, or one was killed.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(f"a worker process died: {WHY_WORKERS_DIE}") from error
    except OSError as error:
        # It is about a file, or comes from within a worker, with the traceback there as its cause.
        if error.filename is not None or error.__cause__ is not None:
            raise
        raise InputError(
            f"worker processes cannot be started: {error.strerror or error}; they need shared "
            f"memory (/dev/shm) that can be written; --num-workers 0, without --cache, needs none"
        ) from error


def _read_alone(
    pool: ProcessPoolExecutor, read: Callable[..., Result], path: Path, *more: object
) -> Result:
    try:
        return pool.submit(read, path, *more).result()
    except BrokenProcessPool as error:
        raise InputError(f"{path}: the process that read it died: {WHY_WORKERS_DIE}") from error


def worker_pool(n_workers: int) -> ProcessPoolExecutor:
    """Make processes that import what they need, and end with this one."""
    context = multiprocessing.get_context("spawn")  # forking a process with threads can hang
    return ProcessPoolExecutor(n_workers, context, _watch_parent)


def _watch_parent() -> None:
    """Let a worker process end with the one that started it, and leave Ctrl-C to that one."""
    open_streams()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
