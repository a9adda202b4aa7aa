"""Reading many files in several processes, which end with this one and survive a crash of one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from src.errors import InputError

CHUNK = 16  # files that a process takes at a time
MIN_FILES = 256  # below, starting processes takes longer than the work

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
        InputError: reading a file kills the process that does it.
    """
    if n_workers < 2 or len(paths) < MIN_FILES:
        yield from map(read, paths, *others)
        return
    n_done = 0
    try:
        with _pool(n_workers) as pool:
            for result in pool.map(read, paths, *others, chunksize=CHUNK):
                yield result
                n_done += 1
    except BrokenProcessPool:
        with _pool(1) as pool:
            for path, *more in islice(zip(paths, *others, strict=True), n_done, None):
                yield _read_alone(pool, read, path, *more)


def _read_alone(
    pool: ProcessPoolExecutor, read: Callable[..., Result], path: Path, *more: object
) -> Result:
    try:
        return pool.submit(read, path, *more).result()
    except BrokenProcessPool as error:
        raise InputError(
            f"{path}: the process that read it died: memory ran out, or a decoder crashed"
        ) from error


def _pool(n_workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # forking a process with threads can hang
    return ProcessPoolExecutor(n_workers, context, _watch_parent)


def _watch_parent() -> None:
    """Let a worker process end with the one that started it, and leave Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
