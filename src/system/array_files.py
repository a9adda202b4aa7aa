"""Read .npz files that may be broken or hostile; nothing in them can run code."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.system.errors import InputError
from src.system.files import look_at_file
from src.system.records import MAX_CAUSE, cut_text, show_value
from src.system.streams import named_warnings

# What the arrays of a file may inflate to: some bytes anyhow, and a multiple of the file.
FREE_BYTES, MAX_INFLATION = 2**26, 100
ARRAY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

LAST_CODE_POINT = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)  # no characters: text that holds them cannot be written


@dataclass(frozen=True, kw_only=True)
class ArraySchema:
    """What an array of a file holds.

    Attributes:
        dtype: of NumPy, such as "float32"; "str" is text of any length.
        shape: a letter is a length that must be the same wherever the letter stands; "I+1" is one
            more than "I".
        low, high: between which the numbers lie; None sets no limit.
        choices: the values that text may have; None sets no limit.
        may_be_nan: whether NaN is a number here.
        is_unique: whether no value may be there twice.
    """

    dtype: str
    shape: tuple[str | int, ...]
    low: float | None = None
    high: float | None = None
    choices: Collection[str] | None = None
    may_be_nan: bool = False
    is_unique: bool = False

    def check(self, name: str, array: NDArray[Any], lengths: dict[str, int]) -> None:
        """Compare an array with what is declared.

        Args:
            name: for the message.
            lengths: letter -> length, of the arrays that were checked before; letters are added.

        Raises:
            ValueError: it is another array.
        """
        is_type = array.dtype.kind == "U" if self.dtype == "str" else array.dtype == self.dtype
        if not is_type or array.ndim != len(self.shape):
            raise ValueError(
                f"{name} is {array.dtype} with {array.ndim} dimensions, not {self.dtype} with "
                f"{len(self.shape)}"
            )
        for actual, size in zip(array.shape, self.shape, strict=True):
            if actual != _length(size, actual, lengths):
                raise ValueError(f"{name} has shape {array.shape}, not {self.shape}")
        if self.dtype == "str":
            self._check_text(name, array)
        else:
            self._check_numbers(name, array)
        if self.is_unique:
            values, counts = np.unique(array, return_counts=True)
            if (counts > 1).any():
                raise ValueError(f"{name} holds {show_value(values[counts > 1][0].item())} twice")

    def _check_text(self, name: str, array: NDArray[Any]) -> None:
        """Refuse what is no character: NumPy's text may hold any numbers of 32 bits."""
        if array.size and array.dtype.itemsize:
            codes = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.byteorder}u4")
            is_surrogate = (codes >= SURROGATES[0]) & (codes <= SURROGATES[1])
            if (is_surrogate | (codes > LAST_CODE_POINT)).any():
                raise ValueError(f"{name} holds what is no text")
        if self.choices is not None:
            for value in array.ravel().tolist():
                if value not in self.choices:
                    choices = ", ".join(self.choices)
                    raise ValueError(f"{name} holds {show_value(value)}, not one of {choices}")

    def _check_numbers(self, name: str, array: NDArray[Any]) -> None:
        is_number = np.isfinite(array)
        if self.may_be_nan:
            is_number |= np.isnan(array)
        if not is_number.all():
            raise ValueError(f"{name} holds a number that is not finite")
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        outside = (array < low) | (array > high)
        if outside.any():
            value = array[outside][0].item()
            raise ValueError(f"{name} holds {value}, which is not between {low:g} and {high:g}")


def check_arrays(arrays: Mapping[str, NDArray[Any]], schemas: Mapping[str, ArraySchema]) -> None:
    """Compare the arrays of a file with what is declared, in the order of the declarations.

    Raises:
        ValueError: one of them is another array; the message names it.
    """
    lengths: dict[str, int] = {}
    for name, schema in schemas.items():
        schema.check(name, arrays[name], lengths)


def read_arrays(
    path: Path,
    names: Iterable[str],
    kind: str,
    error: type[InputError],
    *,
    optional: Iterable[str] = (),
) -> dict[str, NDArray[Any]]:
    """Read arrays of an .npz file; nothing in it can run code.

    Args:
        names: of the arrays, which must be there; others are left alone.
        kind: what the file should be, for the message.
        error: what is raised.
        optional: arrays that are read where they are there.

    Raises:
        error: missing, no .npz file, or without one of the arrays.
    """
    if not path.exists():
        raise error(f"{path}: no such {kind} file")
    n_bytes = look_at_file(path, error).st_size
    try:
        with named_warnings(path), zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            wanted = [*names, *(name for name in optional if f"{name}.npy" in there)]
            members = {name: archive.getinfo(f"{name}.npy") for name in wanted}
            _check_sizes(archive, members.values(), n_bytes)
            arrays = {}
            for name, info in members.items():
                with archive.open(info) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
            return arrays
    except Exception as broken:  # a broken zip raises nearly anything, MemoryError included
        cause = " ".join(str(broken).split()) or type(broken).__name__
        raise error(f"{path}: not a {kind} file: {cut_text(cause, MAX_CAUSE)}") from broken


def _check_sizes(
    archive: zipfile.ZipFile, members: Iterable[zipfile.ZipInfo], n_bytes: int
) -> None:
    """Raise ValueError where arrays declare more than the bytes that are there can hold."""
    limit = FREE_BYTES + MAX_INFLATION * n_bytes
    inflated = sum(info.file_size for info in members)
    if inflated > limit:
        raise ValueError(f"inflates to {inflated} bytes; at most {limit} are read of such a file")
    for info in members:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename} is compressed in another way than NumPy does")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            shape, _, dtype = ARRAY_HEADERS[version](member)
            if math.prod(shape) * max(1, dtype.itemsize) > info.file_size - member.tell():
                raise ValueError(f"{info.filename} has fewer bytes than its shape {shape} needs")


def _length(size: str | int, actual: int, lengths: dict[str, int]) -> int:
    """Return the length that a schema asks for; a letter that is new takes the array's own."""
    if isinstance(size, int):
        return size
    letter, _, more = size.partition("+")
    n_more = int(more or 0)
    return lengths.setdefault(letter, actual - n_more) + n_more
