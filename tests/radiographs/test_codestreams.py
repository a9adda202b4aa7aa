"""Streams whose own header asks for more than the file's header allows."""

import struct
import zlib

import numpy as np
import pytest
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from src.radiographs.codestreams import (
    MAX_FRAGMENTS,
    MAX_JPEG_SCANS,
    StreamSize,
    check_stream,
    picture_size,
    take_frame,
)
from tests.dicom_files import (
    JPEG_LS_STREAM,
    encode_j2k,
    encode_jpeg,
    encode_jpeg_lossless,
    encode_rle,
)

SHAPE = (40, 56)
SIZE = StreamSize(*SHAPE, 1)
PIXELS = np.random.default_rng(2).integers(0, 256, SHAPE).astype(np.uint8)
JPEG, LOSSLESS = encode_jpeg(PIXELS), encode_jpeg_lossless(PIXELS, 8)
J2K = encode_j2k(PIXELS)
JP2 = encode_j2k(PIXELS, codecformat="jp2")
SIZES_OF_J2K = J2K.index(b"\xff\x51") + 6  # right, bottom, left, top, tile width, tile height


def put(stream, place, form, *numbers):
    """Overwrite numbers in a stream."""
    changed = bytearray(stream)
    struct.pack_into(form, changed, place, *numbers)
    return bytes(changed)


def with_jpeg_size(stream, marker, rows, columns):
    return put(stream, stream.index(marker) + 5, ">HH", rows, columns)


def item(content):
    return b"\xfe\xff\x00\xe0" + struct.pack("<L", len(content)) + content


def rle(n_segments, *starts):
    return struct.pack("<16L", n_segments, *starts, *[0] * (15 - len(starts))) + bytes(50)


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (JPEGBaseline8Bit, JPEG),
        (JPEGExtended12Bit, JPEG),
        (JPEGLosslessSV1, LOSSLESS),
        (JPEG2000Lossless, J2K),
        (JPEG2000, JP2),
        (RLELossless, encode_rle(PIXELS)),
        (JPEGBaseline8Bit, JPEG + b"\0"),
    ],
)
def test_check_stream_takes_what_agrees_with_the_header(syntax, stream):
    check_stream(stream, syntax, SIZE)


@pytest.mark.parametrize(
    ("syntax", "stream", "found"),
    [
        (JPEGBaseline8Bit, with_jpeg_size(JPEG, b"\xff\xc0", 65000, 65000), "JPEG 65000 x 65000"),
        (JPEGBaseline8Bit, with_jpeg_size(JPEG, b"\xff\xc0", 0, 56), "JPEG 0 x 56"),
        (JPEGLosslessSV1, with_jpeg_size(LOSSLESS, b"\xff\xc3", 65000, 9), "JPEG 65000 x 9"),
        (JPEGLSLossless, with_jpeg_size(JPEG_LS_STREAM, b"\xff\xf7", 9, 65000), "JPEG 9 x 65000"),
        (JPEGLosslessSV1, put(LOSSLESS, LOSSLESS.index(b"\xff\xc3") + 9, ">B", 200), "56 x 200"),
        (JPEG2000, put(J2K, SIZES_OF_J2K, ">LL", 600, 500), "2000 500 x 600"),
        (JPEG2000, put(J2K, SIZES_OF_J2K + 8, ">LL", 1, 1), "2000 39 x 55"),
        (JPEG2000, put(J2K, SIZES_OF_J2K + 8, ">LL", 90, 1), "2000 39 x -34"),
    ],
)
def test_check_stream_refuses_another_size_than_the_headers(syntax, stream, found):
    with pytest.raises(ValueError, match=f"header says 40 x 56, .*{found}"):
        check_stream(stream, syntax, SIZE)


@pytest.mark.parametrize(
    ("syntax", "stream", "cause"),
    [
        (JPEGBaseline8Bit, b"", "not a JPEG stream"),
        (JPEGBaseline8Bit, J2K, "not a JPEG stream"),
        (JPEGBaseline8Bit, b"\xff\xd8", "truncated"),
        (JPEGBaseline8Bit, b"\xff\xd8" + bytes(99), "truncated"),
        (JPEGBaseline8Bit, JPEG[: JPEG.index(b"\xff\xc0") + 5], "truncated"),
        (JPEGBaseline8Bit, JPEG[: len(JPEG) // 2], "truncated: the JPEG stream has no end"),
        (JPEGLosslessSV1, LOSSLESS[:-2], "truncated: the JPEG stream has no end"),
        (JPEGBaseline8Bit, b"\xff\xd8\xff\xd9", "without a frame header"),
        (JPEGBaseline8Bit, b"\xff\xd8" + b"\xff\xe0\0\2" * 20_000 + JPEG[2:], "segments"),
        (JPEGBaseline8Bit, JPEG + b"\xff\xda" * MAX_JPEG_SCANS + b"\xff\xd9", "scans"),
        (JPEG2000, b"", "not a JPEG 2000 stream"),
        (JPEG2000, JPEG, "not a JPEG 2000 stream"),
        (JPEG2000, J2K[:30], "truncated"),
        (JPEG2000, put(J2K, SIZES_OF_J2K + 16, ">LL", 1, 0), "without pixels"),
        (JPEG2000, put(J2K, SIZES_OF_J2K, ">LL", 0, 40), "without pixels"),
        (JPEG2000, put(J2K, SIZES_OF_J2K + 16, ">LL", 9, 9)[:-2], "truncated: the JPEG 2000"),
        (JPEG2000, JP2[:12], "truncated"),
        (JPEG2000, JP2[:12] + struct.pack(">L4s", 0, b"uuid"), "without a codestream"),
        (JPEG2000, JP2[:12] + struct.pack(">L4sQ", 1, b"uuid", 3), "without a codestream"),
        (JPEG2000, JP2[:12] + struct.pack(">L4s", 8, b"uuid") * 200, "without a codestream"),
        (RLELossless, b"", "truncated"),
        (RLELossless, rle(0), "0 segments"),
        (RLELossless, rle(16, 64), "16 segments"),
        (RLELossless, rle(1, 63), "1 segments"),
        (RLELossless, rle(2, 64, 64), "one after the other"),
        (RLELossless, rle(2, 64, 9999), "one after the other"),
        (MPEG2MPML, b"\0\0\1\xb3", "MPEG2 .* is not read"),
    ],
)
def test_check_stream_refuses_what_has_no_sane_header(syntax, stream, cause):
    with pytest.raises(ValueError, match=cause):
        check_stream(stream, syntax, SIZE)


def test_check_stream_refuses_too_many_tiles_of_jpeg_2000():
    stream = put(put(J2K, SIZES_OF_J2K, ">LL", 65000, 65000), SIZES_OF_J2K + 16, ">LL", 1, 1)
    with pytest.raises(ValueError, match="4225000000 tiles"):
        check_stream(stream, JPEG2000, SIZE)


# take_frame


def test_take_frame_joins_the_fragments_behind_the_table():
    pixel_data = item(b"\0\0\0\0") + item(b"abc") + item(b"") + item(b"de") + b"anything"
    assert take_frame(pixel_data) == b"abcde"


@pytest.mark.parametrize(
    ("pixel_data", "cause"),
    [
        (b"", "no frame"),
        (b"abcdefgh", "no frame"),
        (item(b""), "no frame"),
        (item(b"") + item(b""), "no frame"),
        (item(b"abc")[:6], "truncated"),
        (item(b"") + item(b"abc")[:-1], "a fragment of 3 bytes has 2"),
        (item(b"") + b"\xfe\xff\x00\xe0\xff\xff\xff\xff", "a fragment of 4294967295 bytes has 0"),
        (item(b"") * (MAX_FRAGMENTS + 1), "fragments of one frame"),
    ],
)
def test_take_frame_refuses_what_holds_no_whole_one(pixel_data, cause):
    with pytest.raises(ValueError, match=cause):
        take_frame(pixel_data)


# picture_size


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", checksum)


PNG = b"\x89PNG\r\n\x1a\n"
HEADER, END = chunk(b"IHDR", struct.pack(">LLBBBBB", 56, 40, 8, 0, 0, 0, 0)), chunk(b"IEND", b"")


def test_picture_size_is_height_width_and_planes():
    colour = chunk(b"IHDR", struct.pack(">LLBBBBB", 56, 40, 8, 2, 0, 0, 0))
    assert picture_size(JPEG) == SIZE
    assert picture_size(PNG + HEADER + chunk(b"IDAT", b"?") + END + b"more") == SIZE
    assert picture_size(PNG + colour + END) == StreamSize(40, 56, 3)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "not a JPEG"),
        (PNG, "truncated"),
        (PNG + HEADER, "truncated"),
        (PNG + HEADER + END[:-1], "truncated"),
        (PNG + END + bytes(20), "not at its start"),
        (PNG + chunk(b"tEXt", b"") + HEADER + END, "not at its start"),
        (PNG + chunk(b"IHDR", bytes(14)) + END, "not at its start"),
    ],
)
def test_picture_size_refuses_what_is_not_whole(content, cause):
    with pytest.raises(ValueError, match=cause):
        picture_size(content)
