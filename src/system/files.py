"""Write files whole or not at all, beside their place and renamed; read them within bounds."""

from __future__ import annotations

import csv
import errno
import glob
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from src.system.errors import InputError
from src.system.records import MAX_CAUSE, cut_text

IDLE_SECONDS = 3600.0  # a living writer changes its file more often
# The answers of file systems that cannot flush a folder; there the rename alone must do.
NO_FLUSH_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
MAX_TABLE_BYTES = 2**25  # of a CSV file; the challenge's largest has a twentieth


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


def real_path(path: Path) -> Path:
    """Return a path without links and `~`; what cannot be followed or is nobody's stays in it.

    `Path.resolve` and `Path.expanduser` fail there.
    """
    return Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111


def check_place(path: Path) -> None:
    """Check before long work that a folder can be made and filled; change nothing.

    Raises:
        OutputError: it cannot.
    """
    parents = (path, *path.absolute().parents)
    place = next(parent for parent in parents if parent.exists() or parent.is_symlink())
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
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: cannot be written: a pipe or a device is in its place")


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
        check_file_place(path)  # the rename would fail only after the work, or replace a device
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
        raise OutputError(f"{path}: cannot be written: {_cause(error)}") from error


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


def look_at_file(path: Path, error: type[InputError]) -> os.stat_result:
    """Find out before a file is opened that it has an end, and how large it is.

    Raises:
        error: the file is missing, or it is a folder, or a pipe or a device, which may never end.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as failure:  # a ValueError where the path can be no file's
        raise error(f"{path}: cannot be read: {_cause(failure)}") from failure
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{path}: cannot be read: not a regular file")
    return status


def read_bytes(
    path: Path, limit: int, error: type[InputError], *, n_bytes: int | None = None
) -> bytes:
    """Read a regular file of at most `limit` bytes, or the first `n_bytes` of it.

    Raises:
        error: the file is missing, larger, or something else.
    """
    status = look_at_file(path, error)
    if status.st_size > limit:
        raise error(f"{path}: {status.st_size} bytes; at most {limit} are read")
    try:
        with path.open("rb") as file:
            return file.read(status.st_size if n_bytes is None else n_bytes)
    except OSError as failure:
        raise error(f"{path}: cannot be read: {_cause(failure)}") from failure


def read_json(path: Path, limit: int, error: type[InputError]) -> Any:  # noqa: ANN401 - as json
    """Read a JSON file of at most `limit` bytes.

    Raises:
        error: the file is missing, larger, or something else.
    """
    try:
        return json.loads(read_bytes(path, limit, error))
    except RecursionError as failure:
        raise error(f"{path}: not a readable JSON file: nested too deeply") from failure
    except ValueError as failure:
        if isinstance(failure, InputError):
            raise
        cause = cut_text(str(failure), MAX_CAUSE)
        raise error(f"{path}: not a readable JSON file: {cause}") from failure


def _cause(failure: Exception) -> str:
    return str(getattr(failure, "strerror", None) or failure)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all; what is no text as escapes."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def write_csv(path: Path, header: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with a header to `path`, as `write_text` does."""
    with (
        replaced_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
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
