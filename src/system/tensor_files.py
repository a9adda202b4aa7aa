"""Files of named tensors: safetensors, written and read, and files of torch.save from outside.

Nothing in them can run code: safetensors holds numbers and text, and files of torch.save are read
by PyTorch's `weights_only` alone.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from src.system.files import replaced_file, text_name
from src.system.streams import named_warnings

ZIP_MAGIC = b"PK\x03\x04"  # torch.save writes a zip archive; before 2020 it wrote pickles in a row
CHECKSUM = "crc32"  # key of the metadata: of the header without it, and of all numbers
ALIGNMENT = 64  # bytes; where the numbers begin
TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    The library's own writer takes memory for a copy of all tensors that lie in another order or on
    a GPU, refuses those that share memory, and leaves a file under a name of its own where it is
    killed. Here one tensor is copied at a time.

    Args:
        tensors: strided, of any device and order of memory.
        metadata: `CHECKSUM` is added.

    Raises:
        OutputError: it cannot be written.
    """
    named = _in_file_order(tensors)
    checksum = zlib.crc32(_header(named, metadata))
    with replaced_file(path) as temporary, temporary.open("wb") as file:
        file.write(_header(named, {**metadata, CHECKSUM: f"{0:08x}"}))
        for _, tensor in named:
            content = _bytes_of(tensor)
            checksum = zlib.crc32(content, checksum)
            file.write(content)
        file.seek(0)
        file.write(_header(named, {**metadata, CHECKSUM: f"{checksum:08x}"}))


def load_tensors(path: Path, *, checked: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file; its numbers stay in the file until they are used.

    Args:
        checked: compare the checksum that `save_tensors` wrote, which reads all numbers.

    Returns:
        The tensors, and the metadata without the checksum.

    Raises:
        SafetensorError, OSError, ValueError: the file is damaged or something else.
    """
    with text_name(path) as name, safe_open(name, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    stored = metadata.pop(CHECKSUM, None)
    if checked:
        named = _in_file_order(tensors)
        checksum = zlib.crc32(_header(named, metadata))
        for _, tensor in named:
            checksum = zlib.crc32(_bytes_of(tensor), checksum)
        if stored != f"{checksum:08x}":
            raise ValueError("it is not as it was written")
    return tensors, metadata


def load_torch_file(path: Path, *, checked: bool = True) -> object:
    """Read tensors and plain values from a file of torch.save.

    The memory that is taken is bounded by the file's size only where the file is honest: a made-up
    one may ask for more.

    Args:
        checked: copy the numbers and compare their checksums; else those of a zip archive stay in
            the file until they are used.

    Raises:
        pickle.UnpicklingError: there is something else in it.
        Exception: of nearly any kind; the file is damaged or something else.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    if not is_zip:
        # From memory: PyTorch asks a file for as many bytes as the file says that a text has.
        with named_warnings(path):
            content = io.BytesIO(path.read_bytes())
            return torch.load(content, map_location="cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("compressed, which torch.save never does")
    with named_warnings(path), text_name(path) as name:
        return torch.load(name, map_location="cpu", weights_only=True, mmap=not checked)


def _in_file_order(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Put the largest types first, so that every number lies at a multiple of its size."""
    return sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))


def _header(named: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    """Write what precedes the numbers; its length does not depend on the checksum."""
    content: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, tensor in named:
        start, end = end, end + tensor.nbytes
        content[name] = {
            "dtype": TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(content, separators=(",", ":")).encode()
    n_bytes = struct.calcsize("<Q")
    text += b" " * (-(n_bytes + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, in the order of its dimensions."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
