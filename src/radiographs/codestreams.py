"""What compressed pixels say of themselves, read before a decoder believes it.

Decoders take memory and time for the size in the stream's own header, not for that in the file's:
900 bytes can ask for 11 GB and a minute. So both must agree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

ITEM = b"\xfe\xff\x00\xe0"
MAX_FRAGMENTS = 50_000

# JPEG and JPEG-LS (ITU-T T.81 and T.87). Within a scan no marker but a restart can occur by chance.
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # those three are no frames
JPEG_WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD8)}
MAX_JPEG_SEGMENTS = 10_000  # before the first scan
MAX_JPEG_SCANS = 100  # each goes over the whole picture; progressive ones have about ten
# Pixels for a decoder that lacks some, whether it goes on at once or at a restart.
_ANY_PIXELS = bytes(37 * i % 251 + 1 for i in range(64))  # without a marker
JPEG_SURPLUS = _ANY_PIXELS + b"".join(bytes([0xFF, 0xD0 + i]) + _ANY_PIXELS for i in range(8))

# EXIF within JPEG: a TIFF header in the first application segment.
EXIF_SEGMENT, EXIF_MAGIC = 0xE1, b"Exif\0\0"
EXIF_ORIENTATION, EXIF_SHORT = 0x0112, 3
UPRIGHT = 1

# JPEG 2000 (ITU-T T.800): a codestream starts with its sizes; files may wrap it in boxes.
J2K_START, J2K_END = b"\xff\x4f\xff\x51", b"\xff\xd9"
J2K_SIZES = struct.Struct(">HH8LH")  # from behind the marker to the number of planes
J2K_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
MAX_J2K_TILES = 4096  # a decoder takes kilobytes for each, before it reads any
MAX_J2K_BOXES = 100

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_HEADER_BYTES = 13
PNG_PLANES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette gives colours
PNG_END = b"IEND\xaeB`\x82"

RLE_HEADER = struct.Struct("<16L")  # PS3.5, G.5: how many segments, and where each begins
RLE_MAX_SEGMENTS = 15


class StreamSize(NamedTuple):
    """Height and width in pixels, and the number of planes."""

    rows: int
    columns: int
    planes: int

    def __str__(self) -> str:
        return f"{self.rows} x {self.columns}" + (f" x {self.planes}" if self.planes != 1 else "")


def take_frame(pixel_data: bytes) -> bytes:
    """Return the one frame of encapsulated pixels (PS3.5, A.4): its fragments, joined.

    Raises:
        ValueError: there is none.
    """
    fragments: list[bytes] = []
    start = 0
    while pixel_data[start : start + 4] == ITEM and len(fragments) <= MAX_FRAGMENTS:
        with _header_errors():
            (length,) = struct.unpack_from("<L", pixel_data, start + 4)
        fragments.append(pixel_data[start + 8 : start + 8 + length])
        if len(fragments[-1]) < length:
            raise ValueError(f"truncated: a fragment of {length} bytes has {len(fragments[-1])}")
        start += 8 + length
    if len(fragments) > MAX_FRAGMENTS:
        raise ValueError(f"more than {MAX_FRAGMENTS} fragments of one frame")
    frame = b"".join(fragments[1:])  # the first is a table of where frames begin
    if not frame:
        raise ValueError("the pixel data holds no frame")
    return frame


def check_stream(stream: bytes, syntax: UID, declared: StreamSize) -> None:
    """Hold the size in a stream's own header against the declared one.

    Args:
        stream: one compressed frame.
        syntax: the transfer syntax, which tells the form of the stream.

    Raises:
        ValueError: they differ, the stream tells no size, or its form is not known here.
    """
    with _header_errors():
        if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
            kind, found = "JPEG", _jpeg_size(stream)
        elif syntax in JPEG2000TransferSyntaxes:
            kind, found = "JPEG 2000", _j2k_size(stream)
        elif syntax == RLELossless:
            rle_segments(stream)
            return
        else:
            raise ValueError(f"{syntax.name} is not read")
    if found != declared:
        raise ValueError(f"header says {declared}, {kind} {found}")


def picture_size(content: bytes) -> StreamSize:
    """Read the size that a PNG or JPEG file declares, as far as it is whole.

    Raises:
        ValueError: it is neither, truncated, or declares none or several.
    """
    with _header_errors():
        return _png_size(content) if content.startswith(PNG_MAGIC) else _jpeg_size(content)


def jpeg_orientation(stream: bytes) -> int:
    """Return the orientation that EXIF data give a JPEG picture, 1 to 8; 1 where they give none.

    Raises:
        ValueError: the stream ends within its header.
    """
    with _header_errors():
        for marker, place in _jpeg_segments(stream):
            start = place + 2 + len(EXIF_MAGIC)
            if marker == EXIF_SEGMENT and stream[place + 2 : start] == EXIF_MAGIC:
                (length,) = struct.unpack_from(">H", stream, place)
                return _tiff_orientation(stream[start : place + length])
    return UPRIGHT


def with_surplus(stream: bytes) -> bytes:
    """Put more compressed data before the end of a JPEG stream, which a decoder skips.

    One that fills up what a cut-off stream lacks reads them, and gives another picture.
    """
    end = stream.rfind(JPEG_END)
    return stream[:end] + JPEG_SURPLUS + stream[end:]


def _tiff_orientation(tiff: bytes) -> int:
    """Look for the orientation among the first directory's entries."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}L", tiff, 4)
        (n_entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for i in range(n_entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHLH", tiff, start + 2 + 12 * i)
            if tag == EXIF_ORIENTATION and kind == EXIF_SHORT and 1 <= value <= 8:
                return int(value)
    except struct.error:  # EXIF data that end within a directory give none
        pass
    return UPRIGHT


@contextmanager
def _header_errors() -> Iterator[None]:
    try:
        yield
    except (IndexError, struct.error) as error:
        raise ValueError("truncated: it ends within its header") from error


def _jpeg_size(stream: bytes) -> StreamSize:
    place = next((at for marker, at in _jpeg_segments(stream) if marker in JPEG_FRAMES), None)
    if place is None:
        raise ValueError("a JPEG stream without a frame header")
    _, rows, columns, planes = struct.unpack_from(">BHHB", stream, place + 2)
    if stream.count(JPEG_SCAN, place) > MAX_JPEG_SCANS:
        raise ValueError(f"a JPEG stream of more than {MAX_JPEG_SCANS} scans")
    if stream.rfind(JPEG_END, place) < 0:  # some decoders fill up what is missing
        raise ValueError("truncated: the JPEG stream has no end")
    return StreamSize(rows, columns, planes)


def _jpeg_segments(stream: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and place of each segment before the first scan."""
    if not stream.startswith(JPEG_START):
        raise ValueError("not a JPEG stream")
    place = len(JPEG_START)
    for _ in range(MAX_JPEG_SEGMENTS):
        place = stream.find(b"\xff", place)  # decoders skip what lies between segments
        if place < 0:
            raise IndexError("no further segment")
        while stream[place] == 0xFF:
            place += 1
        marker = stream[place]
        place += 1
        if marker in (JPEG_SCAN[1], JPEG_END[1]):
            return
        yield marker, place
        if marker not in JPEG_WITHOUT_LENGTH:
            place += struct.unpack_from(">H", stream, place)[0]
    raise ValueError(f"a JPEG stream of more than {MAX_JPEG_SEGMENTS} segments")


def _j2k_size(stream: bytes) -> StreamSize:
    start = _find_codestream(stream) if stream.startswith(J2K_SIGNATURE) else 0
    if not stream.startswith(J2K_START, start):
        raise ValueError("not a JPEG 2000 stream")
    start += len(J2K_START)
    sizes = J2K_SIZES.unpack_from(stream, start)
    _, _, right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top, planes = sizes
    n_tiles = _count(right - tiles_left, tile_width) * _count(bottom - tiles_top, tile_height)
    if n_tiles > MAX_J2K_TILES:
        raise ValueError(f"a JPEG 2000 stream of {n_tiles} tiles; at most {MAX_J2K_TILES} are read")
    if n_tiles > 1 and stream.rfind(J2K_END, start) < 0:  # within a tile the decoder misses it
        raise ValueError("truncated: the JPEG 2000 stream has no end")
    return StreamSize(bottom - top, right - left, planes)


def _count(extent: int, step: int) -> int:
    if extent < 1 or step < 1:
        raise ValueError("a JPEG 2000 stream without pixels")
    return -(-extent // step)


def _find_codestream(stream: bytes) -> int:
    """Return where the codestream begins in the boxes of the JP2 file format."""
    place = 0
    for _ in range(MAX_J2K_BOXES):
        length, kind = struct.unpack_from(">L4s", stream, place)
        header = 8
        if length == 1:  # a longer number follows
            (length,) = struct.unpack_from(">Q", stream, place + 8)
            header = 16
        if kind == b"jp2c":
            return place + header
        if length < header:
            break
        place += length
    raise ValueError("a JPEG 2000 file without a codestream")


def _png_size(content: bytes) -> StreamSize:
    """Read the header; the decoder itself refuses wrong checksums and missing pixels."""
    length, kind, columns, rows, _, colours = struct.unpack_from(
        ">L4sLLBB", content, len(PNG_MAGIC)
    )
    if kind != b"IHDR" or length != PNG_HEADER_BYTES:
        raise ValueError("a PNG file whose header is not at its start")
    if content.rfind(PNG_END) < 0:
        raise ValueError("truncated: the PNG file has no end")
    return StreamSize(rows, columns, PNG_PLANES.get(colours, 0))


def rle_segments(stream: bytes) -> list[bytes]:
    """Cut the frame of RLE into its segments (PS3.5, annex G).

    Raises:
        ValueError: the table of segments disagrees with the bytes.
    """
    with _header_errors():
        n_segments, *starts = RLE_HEADER.unpack_from(stream)
    starts = [*starts[:n_segments], len(stream)]
    if not 0 < n_segments <= RLE_MAX_SEGMENTS or starts[0] != RLE_HEADER.size:
        raise ValueError(f"an RLE stream of {n_segments} segments")
    if any(start >= end for start, end in pairwise(starts)):
        raise ValueError("an RLE stream whose segments do not lie in it one after the other")
    return [stream[start:end] for start, end in pairwise(starts)]
