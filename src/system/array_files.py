"""Read .npz files that may be broken or hostile; nothing in them can run code."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.system.errors import InputError

# What the arrays of a file may inflate to: some bytes anyhow, and a multiple of the file.
FREE_BYTES, MAX_INFLATION = 2**26, 100
ARRAY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


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
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.getinfo(f"{name}.npy") for name in names}
            _check_sizes(path, archive, members.values())
            arrays = {}
            for name, info in members.items():
                with archive.open(info) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
            return arrays
    except Exception as broken:  # a broken zip raises nearly anything, MemoryError included
        cause = " ".join(str(broken).split()) or type(broken).__name__
        raise error(f"{path}: not a {kind} file: {cause}") from broken


def _check_sizes(path: Path, archive: zipfile.ZipFile, members: Iterable[zipfile.ZipInfo]) -> None:
    """Raise ValueError where arrays declare more than the bytes that are there can hold."""
    limit = FREE_BYTES + MAX_INFLATION * path.stat().st_size
    n_bytes = sum(info.file_size for info in members)
    if n_bytes > limit:
        raise ValueError(f"inflates to {n_bytes} bytes; at most {limit} are read of such a file")
    for info in members:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename} is compressed in another way than NumPy does")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            shape, _, dtype = ARRAY_HEADERS[version](member)
            if math.prod(shape) * max(1, dtype.itemsize) > info.file_size - member.tell():
                raise ValueError(f"{info.filename} has fewer bytes than its shape {shape} needs")
