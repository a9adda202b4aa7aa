import io
import os
import struct
import tracemalloc

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGExtended12Bit

from src.radiographs import dicom
from src.radiographs.challenge_dicom import MAX_HEADER, read_challenge_pixels, read_challenge_size
from src.radiographs.dicom import DicomError, image_size, read_pixels
from tests.dicom_files import (
    encode_jpeg,
    make_dataset,
    write_challenge_dicom,
    write_dicom,
    write_stream,
)
from tests.paths import shared

N_REAL = 24  # of the real files


@pytest.fixture
def pixels():
    smooth = np.add.outer(np.arange(40), 3 * np.arange(56)) % 256
    return smooth.astype(np.uint8)


def decode_with_pillow(path):
    """Decode as pydicom does with Pillow."""
    return pydicom.pixels.pixel_array(path, decoding_plugin="pillow")


def save(dataset, path):
    dataset.save_as(path, enforce_file_format=True)
    return path


def challenge_dataset(pixels, frames=None):
    """Describe pixels as the challenge does; `frames` are the fragments that hold them."""
    dataset = make_dataset(pixels, JPEGBaseline8Bit)
    dataset.PixelData = encapsulate(frames or [encode_jpeg(pixels)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


# The challenge's kind


@pytest.mark.parametrize("part", range(N_REAL))
def test_read_challenge_pixels_equals_pydicom_with_pillow_on_real_files(part):
    paths = sorted((shared("lungs") / "train").iterdir())
    path = paths[part * len(paths) // N_REAL]
    found = read_challenge_pixels(path)
    assert found is not None
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, decode_with_pillow(path))


def test_read_challenge_size_takes_every_real_file():
    folder = shared("lungs")
    sizes = {
        read_challenge_size(path) for path in [*folder.glob("train/*"), *folder.glob("test/*")]
    }
    assert sizes == {(1024, 1024)}


def test_read_challenge_pixels_equals_pydicom_with_pillow(tmp_path, pixels):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels)
    np.testing.assert_array_equal(read_challenge_pixels(path), decode_with_pillow(path))
    assert read_challenge_size(path) == pixels.shape


def test_read_challenge_pixels_gives_an_array_of_its_own(tmp_path, pixels):
    found = read_challenge_pixels(write_challenge_dicom(tmp_path / "a.dcm", pixels))
    assert found is not None
    assert found.flags.writeable
    assert found.flags.c_contiguous


def test_read_pixels_needs_no_pydicom_for_the_challenge(tmp_path, pixels, monkeypatch):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels)
    expected = decode_with_pillow(path)
    monkeypatch.setattr(dicom, "read_elements", None)
    np.testing.assert_array_equal(read_pixels(path), expected)
    assert image_size(path) == pixels.shape


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientName": "", "PixelSpacing": [0.1, 0.1]},
        {"ICCProfile": b"\0" * 500},
    ],
    ids=["empty", "long"],
)
def test_read_challenge_pixels_takes_tags_that_change_nothing(tmp_path, pixels, tags):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels, **tags)
    np.testing.assert_array_equal(read_challenge_pixels(path), decode_with_pillow(path))


# Unusual files: the general reader's


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": "1"},
        {"RescaleIntercept": "0"},
        {"NumberOfFrames": "1"},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"BitsStored": 7, "HighBit": 6},
        {"PixelRepresentation": 1},
        {"SamplesPerPixel": 3},
        {"PresentationLUTShape": "INVERSE"},
        {"Rows": 41},
        {"Rows": 0},
        {"ReferencedImageSequence": [Dataset()]},
        {"ICCProfile": b"\0" * MAX_HEADER},
    ],
    ids=lambda tags: next(iter(tags)),
)
def test_read_challenge_pixels_leaves_a_header_with(tmp_path, pixels, tags):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels, **tags)
    assert read_challenge_pixels(path) is None


@pytest.mark.parametrize(
    "tag", ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation"]
)
def test_read_challenge_pixels_leaves_a_header_without(tmp_path, pixels, tag):
    dataset = challenge_dataset(pixels)
    del dataset[tag]
    assert read_challenge_pixels(save(dataset, tmp_path / "a.dcm")) is None


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGExtended12Bit])
def test_read_challenge_pixels_leaves_another_syntax(tmp_path, pixels, syntax):
    if syntax == ExplicitVRLittleEndian:
        path = write_dicom(tmp_path / "a.dcm", pixels)
    else:
        path = write_stream(tmp_path / "a.dcm", pixels, syntax, encode_jpeg(pixels))
    assert read_challenge_pixels(path) is None
    assert read_challenge_size(path) is None


def test_read_challenge_pixels_leaves_a_frame_in_fragments(tmp_path, pixels):
    stream = encode_jpeg(pixels)
    half = len(stream) // 4 * 2
    path = save(challenge_dataset(pixels, [stream[:half], stream[half:]]), tmp_path / "a.dcm")
    assert read_challenge_pixels(path) is None


def test_read_challenge_pixels_leaves_colour(tmp_path, pixels):
    coded = io.BytesIO()
    Image.fromarray(np.dstack([pixels] * 3)).save(coded, "JPEG")
    path = write_stream(tmp_path / "a.dcm", pixels, JPEGBaseline8Bit, coded.getvalue())
    assert read_challenge_pixels(path) is None


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text"])
def test_read_challenge_pixels_leaves_what_is_no_dicom(tmp_path, kind):
    path = tmp_path / "a.dcm"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"no image" * 100)
    assert read_challenge_pixels(path) is None
    assert read_challenge_size(path) is None


# Broken and hostile files


def test_read_challenge_pixels_leaves_every_cut(tmp_path, pixels):
    content = write_challenge_dicom(tmp_path / "whole.dcm", pixels).read_bytes()
    path = tmp_path / "cut.dcm"
    for n_bytes in [*range(0, 600, 3), *range(600, len(content), 41), len(content) - 1]:
        path.write_bytes(content[:n_bytes])
        assert read_challenge_pixels(path) is None


def test_read_challenge_pixels_leaves_bytes_behind_the_end(tmp_path, pixels):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels)
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert read_challenge_pixels(path) is None


@pytest.mark.parametrize("mark", [b"\xfe\xff\x00\xe0", b"\xe0\x7f\x10\x00OB\0\0", b"PN"])
def test_read_challenge_pixels_leaves_a_length_beyond_the_file(tmp_path, pixels, mark):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels, PatientName="a^b")
    content = bytearray(path.read_bytes())
    start = content.rindex(mark) + len(mark)
    size = 2 if mark == b"PN" else 4
    content[start : start + size] = b"\xf0" * size
    path.write_bytes(content)
    assert read_challenge_pixels(path) is None


def test_read_challenge_pixels_leaves_a_repeated_tag(tmp_path, pixels):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels)
    content = path.read_bytes()
    rows = struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, pixels.shape[0])
    assert content.count(rows) == 1
    path.write_bytes(content.replace(rows, rows * 2))
    assert read_challenge_pixels(path) is None


def test_read_challenge_pixels_leaves_a_size_of_another_type(tmp_path, pixels):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels)
    rows = struct.pack("<HH", 0x28, 0x10)
    path.write_bytes(path.read_bytes().replace(rows + b"US", rows + b"SS"))
    assert read_challenge_pixels(path) is None


def peak_of_refusal(path):
    tracemalloc.start()
    assert read_challenge_pixels(path) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_read_challenge_pixels_takes_no_memory_for_a_gigantic_file(tmp_path, pixels):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels)
    os.truncate(path, 1 << 30)  # a hole, no blocks
    assert peak_of_refusal(path) < 1 << 20


def test_read_challenge_pixels_takes_no_memory_for_a_gigantic_image(tmp_path, pixels):
    stream = encode_jpeg(pixels)
    frame_header = stream.index(b"\xff\xc0") + 5
    stream = stream[:frame_header] + struct.pack(">HH", 65500, 65500) + stream[frame_header + 4 :]
    size = {"Rows": 65500, "Columns": 65500}
    path = write_stream(tmp_path / "a.dcm", pixels, JPEGBaseline8Bit, stream, **size)
    assert peak_of_refusal(path) < 1 << 20


@pytest.mark.filterwarnings("ignore")  # pydicom's, of odd values
def test_read_challenge_pixels_of_a_damaged_file_are_the_general_readers(
    tmp_path, pixels, monkeypatch
):
    """What the quick reader takes, the general one takes alike."""
    content = write_challenge_dicom(tmp_path / "whole.dcm", pixels).read_bytes()
    header = content.index(b"\xe0\x7f\x10\x00") + 28
    path = tmp_path / "damaged.dcm"
    rng = np.random.default_rng(5)
    n_taken = 0
    for i in range(400):
        damaged = bytearray(content)
        damaged[rng.integers(128, header if i % 4 else len(content))] = rng.integers(256)
        path.write_bytes(damaged)
        found = read_challenge_pixels(path)
        if found is None:
            continue
        n_taken += 1
        with monkeypatch.context() as patch:
            patch.setattr(dicom, "read_challenge_pixels", lambda _: None)
            np.testing.assert_array_equal(found, read_pixels(path))
    assert 20 < n_taken < 380


def test_read_pixels_says_what_is_wrong_with_half_a_challenge_file(tmp_path, pixels):
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DicomError, match=r"a\.dcm"):
        read_pixels(path)


def test_a_progressive_frame_is_left_to_the_general_reader(tmp_path, pixels):
    """It can have scans without end, which the general reader counts."""
    progressive = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    path = write_stream(tmp_path / "a.dcm", pixels, JPEGBaseline8Bit, progressive)
    assert read_challenge_pixels(path) is None
    baseline = cv2.imencode(".jpg", pixels)[1].tobytes()
    path = write_stream(tmp_path / "b.dcm", pixels, JPEGBaseline8Bit, baseline)
    assert read_challenge_pixels(path) is not None
