"""Grey values as viewers show them: the same anatomy looks the same in every encoding."""

import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing

from scripts.phantoms import NORMAL, draw_phantom
from scripts.radiograph_encodings import (
    BORDER,
    ENCODINGS,
    TWELVE_BITS,
    make_file,
    make_table,
)
from src.radiographs.dicom import DicomError, read_facts, read_image, read_pixels
from src.radiographs.image_files import read_any_image
from src.radiographs.pixels import as_float
from src.radiographs.remarks import heard_remarks
from tests.dicom_files import write_challenge_dicom

# Encodings that show the picture as it is; percentiles stretch it in the others.
EXACT = {"8 bits", "window", "window, LINEAR_EXACT", "window, SIGMOID", "two windows", "VOI LUT",
         "VOI LUT, descending"}  # fmt: skip
REMARKED = {
    "window of width 1": ["window"],
    "window that shows white": ["window"],
    "MONOCHROME2, shape INVERSE": ["inversion"],
    "overlay above 12 bits": ["bits"],  # over the whole picture
    "overlay, JPEG 2000": ["bits"],
}
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.fixture(scope="module")
def phantom():
    """Return a radiograph as a viewer should show it, (1024, 1024) uint8."""
    return draw_phantom(np.random.default_rng(3), NORMAL, view="PA", sex="M").pixels


def write(path, stored, **tags):
    path.write_bytes(make_file(stored, **tags))
    return path


def read_with_remarks(path, **options):
    with heard_remarks() as heard:
        image = as_float(read_any_image(path, **options))
    return image, [kind for _, kind in heard]


def levels_of_lungs(image):
    height, width = image.shape
    centre = image[height // 5 : height * 4 // 5, width // 10 : width * 9 // 10]
    low, high = np.percentile(centre, (1, 99))
    return 255 * (high - low)


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_shows_the_same_anatomy(tmp_path, phantom, name):
    path = tmp_path / "a"
    path.write_bytes(ENCODINGS[name](phantom))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # those of libraries do not name the file
        image, remarks = read_with_remarks(path)
    assert remarks == REMARKED.get(name, [])
    assert levels_of_lungs(image) > 220
    inside = (slice(BORDER, -BORDER),) * 2
    expected = phantom[inside] / 255
    assert np.corrcoef(image[inside].ravel(), expected.ravel())[0, 1] > 0.99
    difference = np.abs(image[inside] - expected)
    assert difference.mean() < (0.002 if name in EXACT else 0.03)
    assert 0 <= image.min() < image.max() <= 1


@pytest.mark.parametrize("value", [-2000, -32768])
def test_padding_is_black(tmp_path, phantom, value):
    (tmp_path / "a").write_bytes(ENCODINGS[f"padding of {value}"](phantom))
    image = read_image(tmp_path / "a")
    assert image[:BORDER].max() == image[:, -BORDER:].max() == 0


# What is plain stays as it is


@pytest.mark.parametrize("grey", ["viewer", "range"])
def test_the_challenges_kind_is_the_same_under_both(tmp_path, phantom, grey):
    path = write_challenge_dicom(tmp_path / "a.dcm", phantom)
    pixels = read_pixels(path, grey=grey)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, read_pixels(path))


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": "128", "WindowWidth": "256"},
        {"WindowCenter": "127.5", "WindowWidth": "255", "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": "1", "WindowWidth": "1"},
        {"PresentationLUTShape": "IDENTITY"},
        {"RescaleSlope": "1", "RescaleIntercept": "0"},
    ],
    ids=str,
)
def test_8_bits_stay_as_they_are_with(tmp_path, phantom, tags):
    image = read_image(write(tmp_path / "a", phantom, **tags))
    np.testing.assert_array_equal(image, phantom / np.float32(255))


def test_a_window_of_8_bits_is_applied(tmp_path, phantom):
    image = read_image(write(tmp_path / "a", phantom, WindowCenter="100.5", WindowWidth="101"))
    np.testing.assert_allclose(image, np.clip((phantom - 50.0) / 100, 0, 1), atol=1e-6)


def test_range_looks_at_no_window_and_no_padding(tmp_path):
    tags = {"WindowCenter": "9", "WindowWidth": "9", "PixelPaddingValue": 0}
    image = read_image(write(tmp_path / "a", RAMP, **tags), grey="range")
    np.testing.assert_allclose(image, RAMP / 4095, atol=1e-6)


# The steps, by themselves


def test_without_a_window_percentiles_are_black_and_white(tmp_path):
    image = read_image(write(tmp_path / "a", RAMP, **TWELVE_BITS))
    low, high = np.searchsorted(np.arange(1, 4097), (0.005 * 4096, 0.995 * 4096))
    np.testing.assert_allclose(image, np.clip((RAMP - low) / (high - low), 0, 1), atol=1e-6)


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("slope", [1.0, 2.5])
def test_a_window_is_that_of_pydicom(tmp_path, function, slope):
    tags = {"WindowCenter": "1800.5", "WindowWidth": "1500", "RescaleSlope": str(slope),
            "RescaleIntercept": "-300", **TWELVE_BITS}  # fmt: skip
    if function:
        tags["VOILUTFunction"] = function
    path = write(tmp_path / "a", RAMP, **tags)
    dataset = pydicom.dcmread(path)
    shown = apply_windowing(apply_modality_lut(RAMP, dataset), dataset)
    low, high = -300, 4095 * slope - 300  # pydicom's range of output
    np.testing.assert_allclose(read_image(path), (shown - low) / (high - low), atol=1e-6)


def test_a_window_behind_a_negative_slope_is_not_turned_over(tmp_path):
    tags = {"WindowCenter": "2000", "WindowWidth": "1000", "RescaleSlope": "-1",
            "RescaleIntercept": "4095", **TWELVE_BITS}  # fmt: skip
    image = read_image(write(tmp_path / "a", RAMP, **tags))
    expected = np.clip((4095.0 - RAMP - 1999.5) / 999 + 0.5, 0, 1)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_luts_are_those_of_pydicom(tmp_path):
    rng = np.random.default_rng(0)
    modality = make_table(rng.integers(0, 3000, 3500), first=300, n_bits=16)
    voi = make_table(rng.integers(0, 1024, 2000), first=500, n_bits=10)
    tags = {"ModalityLUTSequence": [modality], "VOILUTSequence": [voi], **TWELVE_BITS}
    path = write(tmp_path / "a", RAMP, **tags)
    dataset = pydicom.dcmread(path)
    shown = apply_voi_lut(apply_modality_lut(RAMP, dataset), dataset)
    np.testing.assert_allclose(read_image(path), shown / 1023, atol=1e-6)


def test_a_lut_comes_before_a_window(tmp_path):
    tags = {"VOILUTSequence": [make_table(np.arange(4096))], "WindowCenter": "100",
            "WindowWidth": "50", **TWELVE_BITS}  # fmt: skip
    image = read_image(write(tmp_path / "a", RAMP, **tags))
    np.testing.assert_allclose(image, RAMP / 4095, atol=1e-6)


def test_a_lut_of_8_bits_has_more_than_256_entries(tmp_path):
    table = make_table(np.arange(4096) // 16, n_bits=8)
    image = read_image(write(tmp_path / "a", RAMP, VOILUTSequence=[table], **TWELVE_BITS))
    np.testing.assert_allclose(image, (RAMP // 16) / 255, atol=1e-6)


def test_a_lut_of_signed_pixels_may_begin_below_zero(tmp_path):
    stored = RAMP.astype(np.int16) - 2048
    table = make_table(np.arange(4096), first=65536 - 2048)
    image = read_image(write(tmp_path / "a", stored, VOILUTSequence=[table]))
    np.testing.assert_allclose(image, RAMP / 4095, atol=1e-6)


def test_a_lut_may_hold_two_entries_in_a_word(tmp_path):
    table = make_table(np.zeros(256), n_bits=8)
    table.LUTData = np.arange(256, dtype=np.uint8).tobytes()
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    image = read_image(write(tmp_path / "a", stored, VOILUTSequence=[table]))
    np.testing.assert_allclose(image, stored / 255, atol=1e-6)


def test_a_broken_voi_lut_gives_way_to_percentiles(tmp_path):
    table = make_table(np.arange(4096))
    table.LUTData = b"\0\0"
    path = write(tmp_path / "a", RAMP, VOILUTSequence=[table], **TWELVE_BITS)
    image, remarks = read_with_remarks(path)
    assert remarks == ["window"]
    np.testing.assert_array_equal(image, read_image(write(tmp_path / "b", RAMP, **TWELVE_BITS)))


def test_a_broken_modality_lut_is_refused(tmp_path):
    """Without it nobody knows whether high values are bright."""
    path = write(tmp_path / "a", RAMP, ModalityLUTSequence=[Dataset()], **TWELVE_BITS)
    with pytest.raises(DicomError, match="a: broken header: "):
        read_image(path)


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": "32768", "WindowWidth": "65536"},  # everything nearly black
        {"WindowCenter": "0", "WindowWidth": "10"},
        {"WindowCenter": "5000", "WindowWidth": "100"},
        {"WindowCenter": "2000", "WindowWidth": "0"},
        {"WindowCenter": "2000", "WindowWidth": "-5"},
        {"WindowCenter": "2000", "WindowWidth": "1e300", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "2000", "WindowWidth": "-1", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "2000", "WindowWidth": "0", "VOILUTFunction": "LINEAR_EXACT"},
    ],
    ids=str,
)
def test_a_window_that_is_plainly_wrong_gives_way_to_percentiles(tmp_path, tags):
    image, remarks = read_with_remarks(write(tmp_path / "a", RAMP, **tags, **TWELVE_BITS))
    assert remarks == ["window"]
    np.testing.assert_array_equal(image, read_image(write(tmp_path / "b", RAMP, **TWELVE_BITS)))


@pytest.mark.parametrize("text", ["2048,5", "AUTO", "20 48"])
@pytest.mark.parametrize("tag", ["WindowCenter", "WindowWidth"])
def test_a_window_that_is_no_number_gives_way_to_percentiles(tmp_path, tag, text):
    tags = {"WindowCenter": "2048", "WindowWidth": "4096", tag: "987654"}
    path = write(tmp_path / "a", RAMP, **tags, **TWELVE_BITS)
    content = path.read_bytes()
    assert content.count(b"987654") == 1
    path.write_bytes(content.replace(b"987654", text[:6].ljust(6).encode()))
    image, remarks = read_with_remarks(path)
    assert remarks == ["window"]
    np.testing.assert_array_equal(image, read_image(write(tmp_path / "b", RAMP, **TWELVE_BITS)))


@pytest.mark.parametrize(
    ("tags", "padded"),
    [
        ({"PixelPaddingValue": 0}, RAMP == 0),
        ({"PixelPaddingValue": 100, "PixelPaddingRangeLimit": 200}, (RAMP >= 100) & (RAMP <= 200)),
        ({"PixelPaddingValue": 200, "PixelPaddingRangeLimit": 100}, (RAMP >= 100) & (RAMP <= 200)),
        ({"PixelPaddingValue": 4095, "PhotometricInterpretation": "MONOCHROME1"}, RAMP == 4095),
    ],
)
def test_padding_is_black_and_counts_nowhere(tmp_path, tags, padded):
    image = read_image(write(tmp_path / "a", RAMP, **tags, **TWELVE_BITS))
    assert (image[padded] == 0).all()
    assert (image == 0).sum() < padded.sum() + 25


def test_a_padding_value_may_need_more_bits_than_the_pixels(tmp_path):
    stored = RAMP.astype(np.int16) - 2048
    stored[:8] = -30000
    path = write(tmp_path / "a", stored, PixelPaddingValue=-30000, **TWELVE_BITS)
    image = read_image(path)
    assert (image[:8] == 0).all()
    assert image[8:].std() > 0.2


def test_a_padding_value_may_be_written_with_the_wrong_sign(tmp_path):
    stored = RAMP.astype(np.int16)
    stored[:8] = -2000
    path = write(tmp_path / "a", stored, PixelPaddingValue=0x7777)
    content = path.read_bytes()
    assert content.count(b"\x77\x77") == 1
    tag = b"\x28\x00\x20\x01SS\x02\x00"
    assert tag in content
    unsigned = content.replace(tag, tag.replace(b"SS", b"US"))
    path.write_bytes(unsigned.replace(b"\x77\x77", (65536 - 2000).to_bytes(2, "little")))
    assert (read_image(path)[:8] == 0).all()


@pytest.mark.parametrize(("value", "limit"), [(4095, 4095), (63536, 63536), (0, 4095)])
def test_a_padding_value_that_no_pixel_can_hold_is_none(tmp_path, value, limit):
    stored = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    tags = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit}
    image, remarks = read_with_remarks(write(tmp_path / "a", stored, **tags))
    np.testing.assert_array_equal(image, stored / np.float32(255))
    assert remarks == []


def test_padding_of_nearly_everything_is_no_padding(tmp_path):
    tags = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4094, **TWELVE_BITS}
    image, remarks = read_with_remarks(write(tmp_path / "a", RAMP, **tags))
    assert remarks == ["padding"]
    assert image.std() > 0.2


@pytest.mark.parametrize(
    ("tags", "inverted", "is_odd"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, True, False),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
            True,
            False,
        ),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
            True,
            True,
        ),
        ({"PresentationLUTShape": "IDENTITY"}, False, False),
        ({"PresentationLUTShape": "INVERSE"}, True, True),
        ({"PresentationLUTShape": "ELSE"}, False, False),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_image_is_inverted_once(tmp_path, tags, inverted, is_odd, dtype):
    stored = (RAMP // 16).astype(dtype)
    plain = read_image(write(tmp_path / "a", stored))
    image, remarks = read_with_remarks(write(tmp_path / "b", stored, **tags))
    np.testing.assert_array_equal(image, 1 - plain if inverted else plain)
    assert remarks == (["inversion"] if is_odd else [])


@pytest.mark.parametrize("n_bits", [9, 12, 16, 20, 32])
@pytest.mark.parametrize("signed", [False, True])
def test_every_number_of_bits_is_read_whatever_lies_above_them(tmp_path, n_bits, signed):
    allocated = 16 if n_bits <= 16 else 32
    low = -(1 << n_bits - 1) if signed else 0
    values = np.linspace(low, low + (1 << n_bits) - 1, 64 * 64).astype(np.int64).reshape(64, 64)
    overlay = np.random.default_rng(0).integers(0, 1 << 62, values.shape) << n_bits
    stored = ((values & (1 << n_bits) - 1) | overlay) & (1 << allocated) - 1
    tags = {"BitsStored": n_bits, "HighBit": n_bits - 1, "PixelRepresentation": int(signed)}
    tags |= {"WindowCenter": str(low + (1 << n_bits - 1)), "WindowWidth": str(1 << n_bits)}
    image = read_image(write(tmp_path / "a", stored.astype(f"u{allocated // 8}"), **tags))
    expected = (values - low) / ((1 << n_bits) - 1)
    np.testing.assert_allclose(image, expected, atol=1e-6)


@pytest.mark.parametrize("n_bits", [10, 11])
@pytest.mark.parametrize("signed", [False, True])
def test_too_few_bits_stored_are_remarked(tmp_path, n_bits, signed):
    stored = RAMP.astype(np.int16) - 2048 if signed else RAMP
    tags = {"BitsStored": n_bits, "HighBit": n_bits - 1}
    assert "bits" in read_with_remarks(write(tmp_path / "a", stored, **tags))[1]
    assert read_with_remarks(write(tmp_path / "b", stored, **TWELVE_BITS))[1] == []


def test_an_overlay_of_few_pixels_and_padding_are_not_remarked(tmp_path):
    overlaid = RAMP.copy()
    overlaid[:2] |= 1 << 12
    assert read_with_remarks(write(tmp_path / "a", overlaid, **TWELVE_BITS))[1] == []
    padded = RAMP.astype(np.int16) - 2048
    padded[:8] = -30000
    path = write(tmp_path / "b", padded, PixelPaddingValue=-30000, **TWELVE_BITS)
    assert read_with_remarks(path)[1] == []


def test_facts_are_those_of_any_encoding(tmp_path):
    path = write(tmp_path / "a", RAMP, VOILUTSequence=[make_table(np.arange(4096))])
    assert read_facts(path).size == "64 x 64"


@pytest.mark.parametrize("value", [0, 700])
def test_a_constant_image_is_black_and_remarked(tmp_path, value):
    image, remarks = read_with_remarks(write(tmp_path / "a", np.full((64, 64), value, np.uint16)))
    assert remarks == ["one grey"]
    assert (image == 0).all()
