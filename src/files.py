"""Write files whole or not at all, beside their place and renamed."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.errors import InputError

LOCK_NAME = ".lock"


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


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends well.

    The temporary file lies in the same folder, keeps the ending of `path`, and is flushed to the
    disk before the rename: under the final name there is the old file or the whole new one.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    make_dir(path.parent)
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    temporary = Path(name)
    try:
        yield temporary
        _finish(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked_dir(path: Path) -> Iterator[None]:
    """Hold a folder for this process alone, until the block or the process ends.

    Raises:
        OutputError: another process holds it, or it cannot be written.
    """
    make_dir(path)
    with (path / LOCK_NAME).open("a+") as file:
        try:
            # A lock of the process, not of the open file: worker processes do not inherit it,
            # and it goes with the process, however that dies.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink == 0:
                raise OSError("its holder has just left and taken the lock file along")
        except OSError as error:
            file.seek(0)
            holder = file.read(100).strip() or "another process"
            raise OutputError(
                f"{path}: {holder} is training there; wait for it, or choose another --run TAG"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            (path / LOCK_NAME).unlink(missing_ok=True)


def read_arrays(
    path: Path, names: Iterable[str], kind: str, error: type[InputError]
) -> dict[str, NDArray[Any]]:
    """Read arrays of an .npz file; nothing in it can run code.

    Args:
        names: of the arrays, which must be there; others are left alone.
        kind: what the file should be, for the message.
        error: what is raised.

    Raises:
        error: missing, no .npz file, or without one of the arrays.
    """
    if not path.is_file():
        raise error(f"{path}: no such {kind} file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except Exception as broken:  # a broken zip raises nearly anything, MemoryError included
        cause = " ".join(str(broken).split()) or type(broken).__name__
        raise error(f"{path}: not a {kind} file: {cause}") from broken


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def _finish(temporary: Path, path: Path) -> None:
    """Flush, give the usual rights (mkstemp's are the owner's alone) and rename."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
