"""One process at a time in a folder: by a file that the process locks and, at its end, removes."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from src.system.files import OutputError, make_dir, output_errors

LOCK_NAME = ".lock"
HOLDER = "process "  # what is written into a lock begins so
MAX_HOLDER = 100  # bytes that are read of it
# The answers of drives that have no locks, as some network drives have none.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# What opening says of a link, a folder and a socket.
OTHER_FILES = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


@contextmanager
def locked_dir(
    path: Path, busy: str, *, wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a folder for this process alone, until the block or the process ends.

    On a drive without locks, a warning says that nothing keeps other processes out.

    Args:
        busy: for the message: what another process does that holds the folder.
        wait: called with the message before this process waits; None raises it instead.

    Raises:
        OutputError: another process holds it, or it cannot be written.
    """
    place = make_dir(path) / LOCK_NAME
    while True:
        with _open_lock(place) as file:
            _lock(file, path, busy, wait)
            if not _is_at(place, file):
                continue  # its holder has just left and removed the file
            with output_errors(place):
                file.truncate(0)
                file.write(f"{HOLDER}{os.getpid()} on {socket.gethostname()}\n".encode())
            try:
                yield
            finally:
                with suppress(OSError):  # it harms nobody
                    place.unlink()
            return


def _open_lock(place: Path) -> FileIO:
    """Open the lock's file, which is made if need be; leave alone what has its name by chance.

    Raises:
        OutputError: the file cannot be opened, or is something else.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(place, flags, 0o666)
    except PermissionError as error:
        raise OutputError(
            f"{place}: cannot be opened: {error.strerror}: another user's process holds the folder "
            f"or was killed there; remove the file if no process works there"
        ) from error
    except OSError as error:
        if error.errno in OTHER_FILES:
            raise _not_a_lock(place) from error
        raise OutputError(f"{place}: cannot be opened: {error.strerror}") from error
    file = FileIO(handle, "r+")
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not _is_lock(file):
        file.close()
        raise _not_a_lock(place)
    return file


def _not_a_lock(place: Path) -> OutputError:
    return OutputError(
        f"{place}: is a link, or something else than the lock of this folder; move it away"
    )


def _is_lock(file: FileIO) -> bool:
    """Say whether a file holds what `locked_dir` writes, or nothing."""
    holder = _read_holder(file)
    return not holder or holder.startswith(HOLDER)


def _read_holder(file: FileIO) -> str:
    file.seek(0)
    return file.read(MAX_HOLDER).decode(errors="replace").strip()


def _lock(file: FileIO, path: Path, busy: str, wait: Callable[[str], None] | None) -> None:
    """Lock an open file, as `locked_dir` says.

    The lock belongs to the process, not to the open file: worker processes do not inherit it, and
    it ends with the process, however that dies.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"{path}: {_read_holder(file) or 'another process'} {busy}"
        if wait is None:
            raise OutputError(message) from None
        wait(message)
        with output_errors(path):
            fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise OutputError(f"{path}: cannot be locked: {error.strerror}") from error
        warnings.warn(
            f"{path}: its drive has no locks ({error.strerror}): nothing keeps other processes out",
            stacklevel=4,
        )


def _is_at(place: Path, file: FileIO) -> bool:
    """Say whether an open file is still the one of its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), place.lstat())
    except FileNotFoundError:
        return False
