"""The challenge's own kind of DICOM file, read with no detours.

Little endian with explicit value representations, one grey JPEG Baseline frame of 8 bits in one
fragment, nothing to rescale: all files of the challenge are so. The header is walked, not parsed,
and the frame goes straight to the decoder. Whatever is unusual in any way is left to the general
reader in `src.radiographs.dicom`, which is slower, and which says what is wrong with a broken file.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from src.radiographs.pixels import MAX_PIXELS

MAX_BYTES = 1 << 26  # of a file; the challenge's have a tenth of a megabyte
MAX_HEADER = 1 << 14  # bytes before the pixels; the challenge's have one thousand

# Elements of the header: the tag, (group << 16) + element, and value representation and value.
ROWS, COLUMNS = 0x0028_0010, 0x0028_0011
PIXEL_DATA = 0x7FE0_0010
EXPECTED = {
    0x0002_0010: b"UI1.2.840.10008.1.2.4.50",  # transfer syntax: JPEG Baseline
    0x0028_0002: b"US\1\0",  # samples per pixel
    0x0028_0004: b"CSMONOCHROME2 ",  # photometric interpretation
    0x0028_0100: b"US\x08\0",  # bits allocated
    0x0028_0101: b"US\x08\0",  # bits stored
    0x0028_0102: b"US\x07\0",  # high bit
    0x0028_0103: b"US\0\0",  # unsigned
}
READ = {*EXPECTED, ROWS, COLUMNS}
# What would change the pixels, or their number: frames, padding, windows, rescaling, tables.
UNEXPECTED = {0x0028_0008, 0x0028_0120, 0x0028_1050, 0x0028_1051, 0x0028_1052, 0x0028_1053,
              0x0028_3000, 0x0028_3010, 0x2050_0020}  # fmt: skip

PLAIN_KINDS = frozenset(  # value representations with a length of two bytes
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
BYTES_KIND = b"OB"  # the one with a length of four bytes that such a file needs
UNDEFINED_LENGTH = 0xFFFF_FFFF
ITEM, END_OF_ITEMS = 0xE000_FFFE, 0xE0DD_FFFE  # read as one little endian number
PROGRESSIVE = b"\xff\xc2"  # the marker of a progressive frame of JPEG
FIRST_ELEMENT = 132  # bytes; behind the preamble and "DICM"

_ELEMENT = struct.Struct("<HH2sH")
_SIDE = struct.Struct("<2sH")
_LONG = struct.Struct("<L")
_ITEM = struct.Struct("<LL")


def read_challenge_pixels(path: Path) -> NDArray[np.uint8] | None:
    """Read the stored values of a file of the challenge's kind.

    Returns:
        (H, W), the values that libjpeg-turbo decodes; None if the file is of another kind, or
        broken, or not there.
    """
    content = _read(path, MAX_BYTES)
    header = _walk_header(content)
    if header is None:
        return None
    height, width, pixel_data = header
    frame = _single_frame(content, pixel_data)
    return None if frame is None else _decode(frame, height, width)


def read_challenge_size(path: Path) -> tuple[int, int] | None:
    """Read height and width off the header of such a file; None if it is of another kind."""
    header = _walk_header(_read(path, MAX_HEADER))
    return None if header is None else header[:2]


def _read(path: Path, n_bytes: int) -> bytes:
    """Read the first bytes of a file; nothing of one that is too large, or not there."""
    try:
        # Once for each image; and a pipe, which nobody writes to, must not be waited for.
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            size = os.fstat(file.fileno()).st_size
            return file.read(min(n_bytes, size)) if size <= MAX_BYTES else b""
    except OSError:
        return b""


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _walk_header(content: bytes) -> tuple[int, int, int] | None:
    """Return height, width and the place of the pixel data's first item.

    Tags ascend, each stands once, and every value lies inside of what was read.
    """
    if content[128:FIRST_ELEMENT] != b"DICM":
        return None
    found: dict[int, bytes] = {}
    place, last_tag, end = FIRST_ELEMENT, 0, min(len(content), MAX_HEADER) - 12
    while place <= end:
        group, element, kind, length = _ELEMENT.unpack_from(content, place)
        tag = (group << 16) | element
        if tag <= last_tag or tag in UNEXPECTED:
            return None
        last_tag = tag
        if kind in PLAIN_KINDS:
            place += 8
        elif kind == BYTES_KIND:
            (length,) = _LONG.unpack_from(content, place + 8)
            place += 12
        else:
            return None
        if tag == PIXEL_DATA:
            return _check(found, place) if length == UNDEFINED_LENGTH else None
        if tag in READ:
            found[tag] = kind + content[place : place + length]
        place += length
    return None


def _check(found: dict[int, bytes], place: int) -> tuple[int, int, int] | None:
    """Hold the header's values against those of the challenge."""
    if any(found.get(tag) != expected for tag, expected in EXPECTED.items()):
        return None
    sides = [found.get(tag, b"") for tag in (ROWS, COLUMNS)]
    if any(len(side) != 4 or side[:2] != b"US" for side in sides):
        return None
    height, width = (_SIDE.unpack(side)[1] for side in sides)
    return (height, width, place) if 0 < height * width <= MAX_PIXELS else None


def _single_frame(content: bytes, place: int) -> memoryview | None:
    """Return the one fragment between the table of offsets and the end of the file."""
    fragments = []
    for _ in range(2):
        if place + 8 > len(content):
            return None
        mark, length = _ITEM.unpack_from(content, place)
        place += 8
        if mark != ITEM:
            return None
        fragments.append(memoryview(content)[place : place + length])
        place += length
    at_end = len(content) == place + 8 and _ITEM.unpack_from(content, place) == (END_OF_ITEMS, 0)
    return fragments[1] if at_end else None


def _decode(frame: memoryview, height: int, width: int) -> NDArray[np.uint8] | None:
    if PROGRESSIVE in bytes(frame[:MAX_HEADER]):  # such a frame can have scans without end
        return None
    try:
        found_height, found_width, colours, _ = simplejpeg.decode_jpeg_header(frame)
        if (found_height, found_width, colours) != (height, width, "Gray"):
            return None
        return np.asarray(simplejpeg.decode_jpeg(frame, colorspace="GRAY")[..., 0])
    except ValueError:  # what libjpeg-turbo objects to
        return None
