"""Files that were made to exhaust, to hang or to crash whoever reads them."""

import contextlib
import os
import signal
import struct
import tracemalloc
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from src.radiographs import dicom, dicom_elements, image_files
from src.radiographs.dicom import DicomError, image_size, read_image
from src.radiographs.dicom_elements import MAX_READS, MAX_VALUE_BYTES
from src.radiographs.image_files import read_any_image
from src.system.errors import InputError
from src.system.files import read_bytes
from tests.dicom_files import (
    encode_j2k,
    encode_jpeg,
    encode_jpeg_lossless,
    encode_rle,
    make_dataset,
    write_challenge_dicom,
    write_dicom,
    write_stream,
)

PIXELS = np.random.default_rng(2).integers(0, 256, (64, 72)).astype(np.uint8)
ROWS = b"\x28\x00\x10\x00US\x02\x00\x40\x00"  # the element, explicit little endian
PIXEL_DATA = b"\xe0\x7f\x10\x00OB\0\0"
ITEM = b"\xfe\xff\x00\xe0"
EMPTY_ITEM, END_OF_ITEMS = ITEM + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
ENDLESS = b"\xff\xff\xff\xff"  # an undefined length
SEQUENCE = b"\x08\x00\x40\x11SQ\0\0"  # Referenced Image Sequence


@pytest.fixture(autouse=True)
def alarm():
    """End a test that hangs."""
    signal.alarm(30)
    yield
    signal.alarm(0)


@pytest.fixture
def plain(tmp_path):
    """Return the bytes of a sound file, and where its rows and its pixels are described."""
    content = write_dicom(tmp_path / "plain.dcm", PIXELS).read_bytes()
    return content, content.index(ROWS), content.index(PIXEL_DATA)


def refusal(tmp_path, content, read=read_image):
    path = tmp_path / "hostile.dcm"
    path.write_bytes(content)
    with pytest.raises(DicomError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@contextlib.contextmanager
def at_most(n_bytes):
    """Hold what Python and NumPy take within the block to a limit."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()


# Headers


ITEMS = SEQUENCE + ENDLESS + EMPTY_ITEM * 2000 + END_OF_ITEMS
ELEMENTS = b"".join(struct.pack("<HH2sH", 9, 0x1000 + i, b"LO", 0) for i in range(2000))


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize("more", [ITEMS, ELEMENTS], ids=["items", "elements"])
def test_a_header_of_too_many_parts_is_refused(tmp_path, plain, more, read, monkeypatch):
    content, rows, _ = plain
    (tmp_path / "a.dcm").write_bytes(content[:rows] + more + content[rows:])
    read(tmp_path / "a.dcm")
    monkeypatch.setattr(dicom_elements, "MAX_READS", 1900)
    refusal(tmp_path, content[:rows] + more + content[rows:], read)


def test_sequences_within_sequences_without_end_are_refused(tmp_path, plain):
    content, rows, _ = plain
    nested = (SEQUENCE + ENDLESS + ITEM + ENDLESS) * 30_000
    assert "recursion" in refusal(tmp_path, content[:rows] + nested + content[rows:])


@pytest.mark.parametrize("kind", [b"SQ", b"UT", b"UN"])
def test_an_image_element_of_megabytes_is_refused(tmp_path, plain, kind):
    content, rows, _ = plain
    value = EMPTY_ITEM * 200_000
    rows_element = ROWS[:4] + kind + b"\0\0" + struct.pack("<L", len(value)) + value
    message = refusal(tmp_path, content[:rows] + rows_element + content[rows + len(ROWS) :])
    assert "element (0028,0010) has 1600000 bytes" in message


def test_an_image_element_without_end_is_refused(tmp_path, plain):
    content, rows, _ = plain
    rows_element = ROWS[:4] + b"SQ\0\0" + ENDLESS + EMPTY_ITEM * 5 + END_OF_ITEMS
    message = refusal(tmp_path, content[:rows] + rows_element + content[rows + len(ROWS) :])
    assert "element (0028,0010)" in message


def test_a_character_set_of_megabytes_is_refused(tmp_path, plain):
    content, _, _ = plain
    place = content.index(b"\x08\x00\x16\x00UI")
    character_set = b"\x08\x00\x05\x00UT\0\0" + struct.pack("<L", 10**6) + b"\\" * 10**6
    message = refusal(tmp_path, content[:place] + character_set + content[place:])
    assert "element (0008,0005) has 1000000 bytes" in message


def test_a_file_meta_element_of_megabytes_is_refused(tmp_path, plain):
    content, _, _ = plain
    n_bytes = MAX_VALUE_BYTES + 8
    element = b"\x02\x00\x00\x00SQ\0\0" + struct.pack("<L", n_bytes) + bytes(n_bytes)
    message = refusal(tmp_path, content[:132] + element + content[144:])
    assert f"an element of {n_bytes} bytes before the pixels" in message


def test_a_private_element_of_megabytes_is_passed_over(tmp_path, plain):
    content, rows, _ = plain
    element = b"\x09\x00\x10\x10UN\0\0" + struct.pack("<L", 3 * 2**20) + bytes(3 * 2**20)
    (tmp_path / "a.dcm").write_bytes(content[:rows] + element + content[rows:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), PIXELS / np.float32(255))


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0xFFFFFFFF, 0x7FFFFFFF, 400])
def test_a_lying_length_of_pixels_gives_the_pixels_or_an_error(tmp_path, plain, length):
    content, _, pixels = plain
    changed = bytearray(content)
    struct.pack_into("<L", changed, pixels + len(PIXEL_DATA), length)
    (tmp_path / "a.dcm").write_bytes(changed)
    with at_most(10e6):
        try:
            np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), PIXELS / np.float32(255))
        except DicomError as error:
            assert length in (0xFFFFFFFF, 400)
            assert length != 400 or "truncated" in str(error)


def test_what_follows_the_pixels_is_not_read(tmp_path, plain):
    content, _, _ = plain
    items = b"\xfc\xff\xfc\xffSQ\0\0" + ENDLESS + EMPTY_ITEM * MAX_READS + END_OF_ITEMS
    (tmp_path / "a.dcm").write_bytes(content + items)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), PIXELS / np.float32(255))


# Deflated files


def test_a_file_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
    whole = write_dicom(tmp_path / "a.dcm", PIXELS, DeflatedExplicitVRLittleEndian).read_bytes()
    start = 132 + 12 + struct.unpack_from("<L", whole, 140)[0]  # behind the file's meta group
    content = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = squeeze.compress(content + bytes(20_000_000)) + squeeze.flush()
    monkeypatch.setattr(dicom_elements, "MAX_BYTES", 1_000_000)
    with at_most(5e6):
        message = refusal(tmp_path, whole[:start] + bomb)
    assert "inflates to more than 1000000 bytes" in message
    monkeypatch.undo()
    (tmp_path / "a.dcm").write_bytes(whole[:start] + bomb)  # with room enough it is an image
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), PIXELS / np.float32(255))


def test_a_deflated_header_of_too_many_parts_is_refused(tmp_path, monkeypatch):
    dataset = make_dataset(PIXELS, DeflatedExplicitVRLittleEndian)
    dataset.ReferencedImageSequence = [Dataset() for _ in range(2000)]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), PIXELS / np.float32(255))
    monkeypatch.setattr(dicom_elements, "MAX_READS", 1900)
    refusal(tmp_path, (tmp_path / "a.dcm").read_bytes())


# Compressed pixels; what their headers may say is in test_codestreams.py


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (JPEGBaseline8Bit, encode_jpeg(PIXELS)),
        (JPEGExtended12Bit, encode_jpeg(PIXELS)),
        (JPEGLosslessSV1, encode_jpeg_lossless(PIXELS, 8)),
        (JPEG2000Lossless, encode_j2k(PIXELS)),
        (RLELossless, encode_rle(PIXELS)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_half_a_stream_gives_no_half_picture(tmp_path, syntax, stream, share):
    n_bytes = int(len(stream) * share) // 2 * 2  # an odd one would be filled up again
    path = write_stream(tmp_path / "a.dcm", PIXELS, syntax, stream[:n_bytes])
    with pytest.raises(DicomError, match="cannot be decoded"):
        read_image(path)


@pytest.mark.parametrize("signed", [0, 1])
def test_a_jpeg_of_gigantic_size_is_refused_before_it_is_decoded(tmp_path, signed):
    stream = bytearray(encode_jpeg(PIXELS))
    struct.pack_into(">HH", stream, stream.index(b"\xff\xc0") + 5, 65000, 65000)
    path = write_stream(
        tmp_path / "a.dcm", PIXELS, JPEGBaseline8Bit, bytes(stream), PixelRepresentation=signed
    )
    with pytest.raises(DicomError, match="header says 64 x 72, JPEG 65000 x 65000"):
        read_image(path)


@pytest.mark.parametrize("signed", [0, 1])
def test_a_jpeg_of_scans_without_end_is_refused(tmp_path, signed):
    """Each scan of a progressive JPEG is another walk over the whole picture."""
    stream = cv2.imencode(".jpg", PIXELS, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = stream.rindex(b"\xff\xda")
    stream = stream[:last] + stream[last:-2] * 500 + stream[-2:]
    path = write_stream(
        tmp_path / "a.dcm", PIXELS, JPEGBaseline8Bit, stream, PixelRepresentation=signed
    )
    with pytest.raises(DicomError, match="more than 100 scans"):
        read_image(path)
    (tmp_path / "a.jpg").write_bytes(stream)
    with pytest.raises(InputError, match="more than 100 scans"):
        read_any_image(tmp_path / "a.jpg")


def test_an_rle_stream_of_more_than_its_pixels_does_no_harm(tmp_path):
    header = struct.pack("<16L", 1, 64, *[0] * 14)
    stream = header + b"\x81\x07" * 1_000_000  # 128 MB of sevens
    path = write_stream(tmp_path / "a.dcm", PIXELS, RLELossless, stream)
    with at_most(20e6), contextlib.suppress(DicomError):  # another decoder may refuse it
        np.testing.assert_array_equal(read_image(path), np.full(PIXELS.shape, np.float32(7 / 255)))


def test_pixels_without_a_frame_are_refused(tmp_path):
    content = write_challenge_dicom(tmp_path / "a.dcm", PIXELS).read_bytes()
    place = content.index(PIXEL_DATA) + len(PIXEL_DATA) + 4
    for items in (b"", ITEM + bytes(4), (ITEM + bytes(4)) * 3):
        message = refusal(tmp_path, content[:place] + items + END_OF_ITEMS)
        assert "no frame" in message or "no pixel data" in message


def second_frame_header(stream, marker):
    place = stream.index(marker)
    header = bytearray(stream[place : place + 13])
    struct.pack_into(">HH", header, 5, 65000, 65000)
    return stream[: place + 13] + bytes(header) + stream[place + 13 :]


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (JPEGBaseline8Bit, second_frame_header(encode_jpeg(PIXELS), b"\xff\xc0")),
        (JPEGLosslessSV1, second_frame_header(encode_jpeg_lossless(PIXELS, 8), b"\xff\xc3")),
        (JPEGLSLossless, second_frame_header(imagecodecs.jpegls_encode(PIXELS), b"\xff\xf7")),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_second_frame_header_is_refused(tmp_path, syntax, stream):
    path = write_stream(tmp_path / "a.dcm", PIXELS, syntax, bytes(stream))
    with at_most(10e6), pytest.raises(DicomError, match="cannot be decoded"):
        read_image(path)


@pytest.mark.parametrize("changes", [(32, ">H", 60_000), (35, ">BB", 1, 2), (35, ">BB", 0, 0)])
def test_jpeg_2000_whose_planes_differ_in_size_is_refused(tmp_path, changes):
    stream = bytearray(encode_j2k(PIXELS))
    offset, form, *numbers = changes
    struct.pack_into(form, stream, stream.index(b"\xff\x51") + 6 + offset, *numbers)
    path = write_stream(tmp_path / "a.dcm", PIXELS, JPEG2000Lossless, bytes(stream))
    with at_most(10e6), pytest.raises(DicomError, match="cannot be decoded"):
        read_image(path)


# What is no file


@pytest.mark.parametrize("read", [read_image, image_size, read_any_image])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_pipe_or_a_folder_in_place_of_a_file_is_refused(tmp_path, make, read):
    make(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"a\.dcm: cannot be read: not a regular file"):
        read(tmp_path / "a.dcm")


@pytest.mark.parametrize("read", [read_image, image_size, read_any_image])
def test_a_link_to_a_device_is_refused(tmp_path, read):
    (tmp_path / "a.dcm").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"a\.dcm: cannot be read: not a regular file"):
        read(tmp_path / "a.dcm")


@pytest.mark.parametrize("read", [read_image, image_size, read_any_image])
def test_a_link_in_a_circle_is_refused(tmp_path, read):
    (tmp_path / "a.dcm").symlink_to(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"a\.dcm: cannot be read"):
        read(tmp_path / "a.dcm")


def test_a_file_of_gigantic_length_is_refused_without_reading_it(tmp_path):
    with (tmp_path / "a.dcm").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DicomError, match="1099511627776 bytes; at most"):
        read_image(tmp_path / "a.dcm")


def test_read_bytes_takes_a_file_of_the_very_limit(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5, InputError) == b"12345"
    assert read_bytes(tmp_path / "a", 5, InputError, n_bytes=2) == b"12"
    with pytest.raises(InputError, match="5 bytes; at most 4"):
        read_bytes(tmp_path / "a", 4, InputError, n_bytes=2)


# Pictures


def png_chunk(kind, content):
    return (
        struct.pack(">L", len(content)) + kind + content
        + struct.pack(">L", zlib.crc32(kind + content))
    )  # fmt: skip


def test_a_png_of_gigantic_size_is_refused_before_it_is_decoded(tmp_path):
    header = struct.pack(">LLBBBBB", 30_000, 30_000, 16, 6, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6), 9)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(image_files.PNG_MAGIC + chunks)
    with pytest.raises(InputError, match="30000 x 30000 x 4 pixels is not the size"):
        read_any_image(tmp_path / "a.png")


def test_a_jpeg_picture_of_gigantic_size_is_refused_before_it_is_decoded(tmp_path):
    stream = bytearray(encode_jpeg(PIXELS))
    struct.pack_into(">HH", stream, stream.index(b"\xff\xc0") + 5, 65000, 65000)
    (tmp_path / "a.jpg").write_bytes(stream)
    with pytest.raises(InputError, match="65000 x 65000 pixels is not the size"):
        read_any_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("place", [20, 45, 500, -20, -6])
def test_a_png_with_a_wrong_checksum_is_refused_in_silence(tmp_path, place, capfd):
    content = bytearray(cv2.imencode(".png", PIXELS)[1].tobytes())
    content[place] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_any_image(tmp_path / "a.png")
    assert capfd.readouterr() == ("", "")


def test_a_png_of_a_million_chunks_does_no_harm(tmp_path):
    content = cv2.imencode(".png", PIXELS)[1].tobytes()
    start = content.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(
        content[:start] + png_chunk(b"tEXt", b"a\0b") * 10**6 + content[start:]
    )
    with contextlib.suppress(InputError):
        np.testing.assert_array_equal(read_any_image(tmp_path / "a.png"), PIXELS)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_half_a_picture_is_refused_in_silence(tmp_path, ending, capfd):
    content = cv2.imencode(ending, PIXELS)[1].tobytes()
    path = tmp_path / f"a{ending}"
    for n_bytes in range(9, len(content) - 1, 97):
        path.write_bytes(content[:n_bytes])
        with pytest.raises(InputError, match="cannot be decoded"):
            read_any_image(path)
    assert capfd.readouterr() == ("", "")


def test_damage_that_a_jpeg_decoder_could_make_up_for_is_refused(tmp_path):
    content = cv2.imencode(".jpg", PIXELS)[1].tobytes()
    start = content.index(b"\xff\xda") + 14
    (tmp_path / "a.jpg").write_bytes(content[: start + 40] + content[-2:])
    with pytest.raises(InputError, match="cannot be decoded: Corrupt JPEG data"):
        read_any_image(tmp_path / "a.jpg")


def test_the_limits_leave_room_for_the_largest_detectors():
    assert dicom.MAX_PIXELS > 8000 * 6000
    assert dicom.MAX_BYTES > 8000 * 6000 * 4
