"""Write files whole or not at all, beside their place and renamed; read them within bounds."""

from __future__ import annotations

import csv
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from src.system.errors import InputError

LOCK_NAME = ".lock"
IDLE_SECONDS = 3600.0  # a living writer changes its file more often
# The answers of file systems that cannot flush a folder; there the rename alone must do.
NO_FLUSH_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)


class OutputError(InputError):
    """A place that cannot be written: missing rights, a full disk, a file in the way."""


def make_dir(path: Path) -> Path:
    """Create the folder `path` and its parents.

    Raises:
        OutputError: the folder cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be created as a folder: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder is not writable")
    return path


def check_place(path: Path) -> None:
    """Check before long work that a folder can be made and filled; change nothing.

    Raises:
        OutputError: it cannot.
    """
    place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: cannot be filled: {place} is no folder, or not writable")


def check_file_place(path: Path) -> None:
    """Find out before long work whether a file can be written, and leave all as it is.

    Raises:
        OutputError: it cannot.
    """
    check_place(path.parent)
    if path.is_dir():
        raise OutputError(f"{path}: cannot be written: a folder is in its place")


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends well.

    The temporary file lies in the same folder, keeps the ending of `path`, and is flushed to the
    disk before the rename: the final name always shows the old file or the complete new one. What
    a killed writer left is removed by the next writer of `path`, if an hour has passed.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    make_dir(path.parent)
    with output_errors(path):
        if path.is_dir():  # the rename would fail only after the work
            raise IsADirectoryError("a folder is in its place")
        ending = f".tmp{path.suffix}"
        remove_leftovers(path.parent, glob.escape(path.stem), ending)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=ending, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            move_into_place(temporary, path)
        finally:
            _remove(temporary)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path`, new or empty, when the block ends well.

    Like the file of `replaced_file`, it lies beside its final place, is flushed with all its files,
    and is removed if the block fails.

    Raises:
        OutputError: the folder or a file in it cannot be written.
    """
    make_dir(path.parent)
    with output_errors(path):
        ending = ".partial"
        remove_leftovers(path.parent, glob.escape(path.stem), ending)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", suffix=ending, dir=path.parent))
        try:
            yield temporary
            for folder, _, names in os.walk(temporary):
                for file in (Path(folder, name) for name in names):
                    if not file.is_symlink():
                        _flush(file)
                _flush_names(Path(folder))
            temporary.chmod(0o777 & ~_umask())
            temporary.rename(path)
            _flush_names(path.parent)
        finally:
            _remove(temporary)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name and the usual rights, so that it survives a loss of power.

    Raises:
        OSError: it cannot be; `path` is the old file or the whole new one.
    """
    temporary.chmod(0o666 & ~_umask())  # mkstemp's are the owner's alone
    _flush(temporary)
    temporary.replace(path)
    _flush_names(path.parent)


def remove_leftovers(folder: Path, stem: str, ending: str, *, idle: float = IDLE_SECONDS) -> None:
    """Remove what killed writers left under temporary names, but nothing that is still written.

    Args:
        stem: glob pattern of the final names without their ending.
        ending: of the temporary names.
        idle: seconds without a change after which a file has no writer any more; 0 where the
            caller keeps other writers out.
    """
    for leftover in folder.glob(f".{stem}.{'[a-z0-9_]' * 8}{ending}"):
        with suppress(OSError):  # another writer was quicker
            parts = [leftover, *(leftover.iterdir() if leftover.is_dir() else ())]
            if not idle or time.time() - max(part.lstat().st_mtime for part in parts) > idle:
                _remove(leftover)


def read_bytes(
    path: Path, limit: int, error: type[InputError], *, n_bytes: int | None = None
) -> bytes:
    """Read a regular file of at most `limit` bytes, or the first `n_bytes` of it.

    Raises:
        error: the file is missing or larger, or it is a pipe or a device, which may never end.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{path}: cannot be read: not a regular file")
        if status.st_size > limit:
            raise error(f"{path}: {status.st_size} bytes; at most {limit} are read")
        with path.open("rb") as file:
            return file.read(status.st_size if n_bytes is None else n_bytes)
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror or failure}") from failure


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked_dir(
    path: Path, busy: str, *, wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a folder for this process alone, until the block or the process ends.

    Args:
        busy: for the message: what another process does that holds the folder.
        wait: called with the message before this process waits; None raises it instead.

    Raises:
        OutputError: another process holds it, or it cannot be written.
    """
    place = make_dir(path) / LOCK_NAME
    while True:
        with output_errors(path):
            file = place.open("a+")
        with file:
            _lock(file, path, busy, wait)
            if not _is_at(place, file):
                continue  # its holder has just left and removed the file
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            try:
                yield
            finally:
                place.unlink(missing_ok=True)
            return


def _lock(file: TextIO, path: Path, busy: str, wait: Callable[[str], None] | None) -> None:
    """Lock an open file, as `locked_dir` says.

    The lock belongs to the process, not to the open file: worker processes do not inherit it, and
    it ends with the process, however that dies.
    """
    with output_errors(path):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            message = f"{path}: {file.read(100).strip() or 'another process'} {busy}"
            if wait is None:
                raise OutputError(message) from None
            wait(message)
            fcntl.lockf(file, fcntl.LOCK_EX)


def _is_at(place: Path, file: TextIO) -> bool:
    """Say whether an open file is still the one of its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), place.stat())
    except FileNotFoundError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def write_csv(path: Path, header: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    """Write a table to `path` as UTF-8 with a header, whole or not at all."""
    with (
        replaced_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        # With this end of a line, cells that hold either of its characters are quoted.
        lines = SimpleNamespace(write=lambda line: file.write(line.removesuffix("\r\n") + "\n"))
        writer = csv.writer(lines, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows(rows)


def _flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_names(folder: Path) -> None:
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in NO_FLUSH_OF_FOLDERS:
            raise


def _remove(path: Path) -> None:
    """Remove a file or a folder if it is there and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
