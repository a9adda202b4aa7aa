"""Files of torch.save that hold tensors and plain values: read so that nothing in them can act.

PyTorch's own `weights_only` lets no code run, but a file of some bytes may still make it fill the
memory. What a file is about to build is looked through before it is built.
"""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import torch

ZIP_MAGIC = b"PK\x03\x04"  # torch.save writes a zip archive; before 2020 it wrote pickles in a row
N_OLD_PICKLES = 5  # the parts of that older form, before the numbers

# What tensors, state dicts and plain values are made of. Bytes are not among them: a pickle makes
# them by functions that could as well fill the memory.
HARMLESS = re.compile(
    r"collections (OrderedDict|Counter)|torch Size|torch device|torch bool|torch [a-z]*\d+"
    r"|torch \w+Storage|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter)"
)


def load_tensor_file(path: Path, *, mapped: bool = False) -> object:
    """Read tensors and plain values.

    Args:
        mapped: leave the numbers in the file until they are used; their checksums are not held.

    Raises:
        pickle.UnpicklingError: there is something else in it.
        Exception: of nearly any kind; the file is damaged or something else.
    """
    for name in _named_objects(path):
        if not HARMLESS.fullmatch(name):
            raise pickle.UnpicklingError(f"it holds {name!r}, not tensors and plain values alone")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _named_objects(path: Path) -> Iterator[str]:
    """Yield module and name of each class and function that loading the file would call."""
    for stream, n_pickles in _pickles(path):
        for _ in range(n_pickles):
            for operation, argument, _place in pickletools.genops(stream):
                if operation.name == "GLOBAL":  # the others that name things PyTorch refuses
                    yield str(argument)


def _pickles(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Yield streams, and how many pickles each starts with."""
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        file.seek(0)
        if not is_zip:
            # A mapping gives what is there; a file would first take memory for what is asked.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield cast("IO[bytes]", content), N_OLD_PICKLES
            return
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("compressed, which torch.save never does")
            for member in members:
                if member.filename.endswith(".pkl"):
                    yield io.BytesIO(archive.read(member)), 1
