import csv
import io
import logging
import tracemalloc

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from src.radiographs.dicom import DicomError, image_size, read_image
from tests.dicom_files import (
    JPEG_LS_PIXELS,
    JPEG_LS_STREAM,
    encode_j2k,
    encode_jpeg,
    encode_jpeg_lossless,
    make_dataset,
    write_challenge_dicom,
    write_dicom,
    write_stream,
)
from tests.paths import shared

SIIM = "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
ONE_LEVEL = 1 / 255 + 1e-6
UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
UNCOMPRESSED_OR_DEFLATED = [*UNCOMPRESSED, DeflatedExplicitVRLittleEndian]

# Files of ../shared/dicom_samples that give no picture, and a word of the cause.
REFUSED_SAMPLES = {
    "empty.dcm": "empty",
    "siim_2frames.dcm": "2 frames",
    "siim_bitflips.dcm": "Corrupt JPEG",
    "siim_no_pixeldata.dcm": "no pixel data",
    "siim_truncated_50pct.dcm": "truncated",
}
# Encodings of one picture, which went in as another JPEG decoder gave it: that one rounds up to a
# grey level away from the decoder that reads SIIM here.
SIIM_SAMPLES = [
    "siim_12bit_explicit_le.dcm",
    "siim_16bit_signed_rescale.dcm",
    "siim_j2k_lossless_8.dcm",
    "siim_rle_8.dcm",
    "siim_rgb.dcm",
]
OTHER_SAMPLES = [
    SIIM,
    "Fake_MONOHR1.dcm",
    "CR-MONO1-10-chest.dcm",
    "Monochrome1-Jpeg.dcm",
    "RG1_J2KI.dcm",
    "siim_landscape_1024x768.dcm",
]


def random_pixels(dtype=np.uint8, low=0, high=256, shape=(11, 14)):
    return np.random.default_rng(4).integers(low, high, shape).astype(dtype)


def encode_picture(ending):
    return cv2.imencode(ending, random_pixels())[1].tobytes()


def stretch(values):
    values = values.astype(np.float64)
    return (values - values.min()) / (values.max() - values.min())


def decode_with_pillow(path):
    """Return the stored values of a JPEG Baseline file."""
    dataset = pydicom.dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    return np.asarray(Image.open(io.BytesIO(frame)))


def refusal(path, read=read_image):
    """Return the message of the DicomError, after checking that it is one line with the name."""
    with pytest.raises(DicomError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    return message


# The challenge's kind


@pytest.mark.parametrize("i", range(6))
def test_read_image_gives_real_files_as_pillow_decodes_them(i):
    path = sorted((shared("lungs") / "train").iterdir())[i * 46]
    expected = decode_with_pillow(path).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(read_image(path), expected)


def test_read_image_gives_a_challenge_file_as_stored_by_255(tmp_path):
    pixels = cv2.GaussianBlur(random_pixels(shape=(40, 56)), (0, 0), 2)
    path = write_challenge_dicom(tmp_path / "a.dcm", pixels)
    image = read_image(path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, decode_with_pillow(path) / np.float32(255))
    assert np.abs(image - pixels / 255).max() < 0.05


def test_read_image_does_not_stretch_8_bits(tmp_path):
    image = read_image(write_dicom(tmp_path / "a.dcm", random_pixels(low=50, high=101)))
    assert (image.min(), image.max()) == (np.float32(50 / 255), np.float32(100 / 255))


# Real files in other encodings


def test_dicom_samples_are_all_tested():
    with (shared("dicom_samples") / "samples.csv").open(newline="") as file:
        names = {row["name"] for row in csv.DictReader(file)}
    assert names == {*REFUSED_SAMPLES, *SIIM_SAMPLES, *OTHER_SAMPLES}


@pytest.mark.filterwarnings("ignore:End of file reached")
@pytest.mark.parametrize(("name", "cause"), REFUSED_SAMPLES.items())
def test_read_image_refuses_broken_sample(name, cause):
    assert cause in refusal(shared("dicom_samples") / name)


@pytest.mark.parametrize("name", [*SIIM_SAMPLES, *OTHER_SAMPLES])
def test_read_image_gives_sample_the_size_and_range_of_its_kind(name):
    folder = shared("dicom_samples")
    with (folder / "samples.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["name"] == name)
    image = read_image(folder / name, grey="range")
    assert image.dtype == np.float32
    assert image.shape == (float(row["rows"]), float(row["cols"])) == image_size(folder / name)
    darkest, brightest = float(row["pixel_min"]), float(row["pixel_max"])
    if row["bits_stored"] == "8.0":
        darkest, brightest = darkest / 255, brightest / 255
    else:
        darkest, brightest = 0.0, 1.0
    if row["photometric"] == "MONOCHROME1":
        darkest, brightest = 1 - brightest, 1 - darkest
    # JPEG decoders round up to one level apart.
    assert image.min() == pytest.approx(darkest, abs=ONE_LEVEL)
    assert image.max() == pytest.approx(brightest, abs=ONE_LEVEL)
    assert 0 <= image.min() < image.max() <= 1


@pytest.mark.parametrize("name", SIIM_SAMPLES)
def test_read_image_gives_the_same_picture_in_another_encoding(name):
    folder = shared("dicom_samples")
    assert (
        np.abs(read_image(folder / name, grey="range") - read_image(folder / SIIM)).max()
        <= ONE_LEVEL
    )


@pytest.mark.parametrize("name", [name for name in SIIM_SAMPLES if name != "siim_rle_8.dcm"])
def test_read_image_gives_lossless_encodings_alike(name):
    folder = shared("dicom_samples")
    np.testing.assert_allclose(
        read_image(folder / name, grey="range"),
        read_image(folder / "siim_rle_8.dcm"),
        rtol=0,
        atol=1e-7,
    )


def test_read_image_inverts_the_monochrome1_sample():
    folder = shared("dicom_samples")
    np.testing.assert_array_equal(
        read_image(folder / "Fake_MONOHR1.dcm"), 1 - read_image(folder / SIIM)
    )


def test_read_image_inverts_the_real_monochrome1_jpeg():
    path = shared("dicom_samples") / "Monochrome1-Jpeg.dcm"
    expected = 1 - decode_with_pillow(path).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(read_image(path, grey="range"), expected)


def test_read_image_reads_10_bits_without_a_part_10_header():
    path = shared("dicom_samples") / "CR-MONO1-10-chest.dcm"
    stored = np.frombuffer(path.read_bytes()[-440 * 440 * 2 :], "<u2").reshape(440, 440)
    np.testing.assert_allclose(read_image(path, grey="range"), 1 - stored / 979, rtol=0, atol=1e-6)


def test_read_image_reads_15_bits_of_jpeg_2000():
    path = shared("dicom_samples") / "RG1_J2KI.dcm"
    frame = next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))
    expected = 1 - stretch(imagecodecs.jpeg2k_decode(frame))
    np.testing.assert_allclose(read_image(path, grey="range"), expected, rtol=0, atol=1e-6)


def test_read_image_reads_the_landscape_sample_row_by_row():
    path = shared("dicom_samples") / "siim_landscape_1024x768.dcm"
    stored = np.frombuffer(path.read_bytes()[-768 * 1024 :], np.uint8).reshape(768, 1024)
    np.testing.assert_array_equal(read_image(path), stored / np.float32(255))


# Transfer syntaxes


@pytest.mark.parametrize("syntax", UNCOMPRESSED_OR_DEFLATED, ids=lambda uid: uid.name)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_read_image_reads_uncompressed(tmp_path, syntax, dtype):
    pixels = random_pixels(dtype, high=np.iinfo(dtype).max + 1)
    image = read_image(write_dicom(tmp_path / "a.dcm", pixels, syntax))
    expected = pixels / 255 if dtype == np.uint8 else stretch(pixels)
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_read_image_reads_rle(tmp_path, dtype):
    pixels = random_pixels(dtype, high=np.iinfo(dtype).max + 1, shape=(33, 47))
    dataset = make_dataset(pixels)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = read_image(tmp_path / "a.dcm", grey="range")
    expected = pixels / 255 if dtype == np.uint8 else stretch(pixels)
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6)


def test_read_image_reads_rle_of_equal_planes(tmp_path):
    pixels = random_pixels(shape=(33, 47))
    dataset = make_dataset(np.stack([pixels] * 3, axis=2))
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), pixels / np.float32(255))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_read_image_reads_lossless_jpeg_2000(tmp_path, syntax, dtype):
    pixels = random_pixels(dtype, high=np.iinfo(dtype).max + 1, shape=(32, 48))
    is_plain = syntax == JPEG2000Lossless
    stream = encode_j2k(pixels) if is_plain else bytes(imagecodecs.htj2k_encode(pixels))
    image = read_image(write_stream(tmp_path / "a.dcm", pixels, syntax, stream), grey="range")
    expected = pixels / 255 if dtype == np.uint8 else stretch(pixels)
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6)


def test_read_image_reads_lossy_jpeg_2000(tmp_path):
    pixels = cv2.GaussianBlur(random_pixels(shape=(64, 96)), (0, 0), 3)
    stream = encode_j2k(pixels, reversible=False, level=45)  # dB
    image = read_image(write_stream(tmp_path / "a.dcm", pixels, JPEG2000, stream))
    assert 0 < np.abs(image - pixels / 255).max() < 0.05


@pytest.mark.parametrize("precision", [8, 12, 16])
def test_read_image_reads_lossless_jpeg(tmp_path, precision):
    dtype = np.uint8 if precision == 8 else np.uint16
    pixels = random_pixels(dtype, high=min(1 << precision, 1 << 15))
    stream = encode_jpeg_lossless(pixels, precision)
    tags = {"BitsStored": precision, "HighBit": precision - 1}
    image = read_image(write_stream(tmp_path / "a.dcm", pixels, JPEGLosslessSV1, stream, **tags))
    expected = pixels / 255 if precision == 8 else stretch(pixels)
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6)


def test_read_image_reads_jpeg_ls(tmp_path):
    path = write_stream(tmp_path / "a.dcm", JPEG_LS_PIXELS, JPEGLSLossless, JPEG_LS_STREAM)
    np.testing.assert_array_equal(read_image(path), JPEG_LS_PIXELS / np.float32(255))


# Numbers of bits, signs, rescaling, photometry


@pytest.mark.parametrize("n_bits", [10, 12, 16])
def test_read_image_stretches_unsigned(tmp_path, n_bits):
    pixels = random_pixels(np.uint16, low=100, high=1 << n_bits)
    tags = {"BitsStored": n_bits, "HighBit": n_bits - 1}
    image = read_image(write_dicom(tmp_path / "a.dcm", pixels, **tags))
    np.testing.assert_allclose(image, stretch(pixels), rtol=0, atol=1e-6)
    assert (image.min(), image.max()) == (0, 1)


@pytest.mark.parametrize("n_bits", [10, 12, 16])
def test_read_image_stretches_signed(tmp_path, n_bits):
    pixels = random_pixels(np.int16, low=-(1 << (n_bits - 1)), high=1 << (n_bits - 1))
    tags = {"BitsStored": n_bits, "HighBit": n_bits - 1, "PixelRepresentation": 1}
    stored = pixels.astype(np.uint16) & ((1 << n_bits) - 1)  # nothing in the bits above the sign
    image = read_image(write_dicom(tmp_path / "a.dcm", stored, **tags))
    np.testing.assert_allclose(image, stretch(pixels), rtol=0, atol=1e-6)


def test_read_image_ignores_bits_above_those_stored(tmp_path):
    pixels = random_pixels(np.uint16, high=1 << 12)
    tags = {"BitsStored": 12, "HighBit": 11}  # old files keep an overlay above
    image = read_image(write_dicom(tmp_path / "a.dcm", pixels | 0xA000, **tags))
    np.testing.assert_allclose(image, stretch(pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_read_image_reads_bits_at_the_upper_end(tmp_path, signed):
    low, high = (-(1 << 11), 1 << 11) if signed else (0, 1 << 12)
    pixels = random_pixels(np.int16 if signed else np.uint16, low=low, high=high)
    tags = {"BitsStored": 12, "HighBit": 15}
    image = read_image(write_dicom(tmp_path / "a.dcm", pixels << 4, **tags))
    np.testing.assert_allclose(image, stretch(pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(2.5, -1000), (1, 1024), (0.001, 0), ("1e308", "1e308"), ("1e-300", 1000)],
)
def test_read_image_takes_no_notice_of_a_rising_rescale(tmp_path, slope, intercept):
    pixels = random_pixels(np.int16, low=-1024, high=1024)
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    image = read_image(write_dicom(tmp_path / "a.dcm", pixels, **tags))
    np.testing.assert_allclose(image, stretch(pixels), rtol=0, atol=1e-6)


def test_read_image_turns_a_falling_rescale_over(tmp_path):
    pixels = random_pixels(np.uint16, high=4096)
    tags = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    image = read_image(write_dicom(tmp_path / "a.dcm", pixels, **tags))
    np.testing.assert_allclose(image, 1 - stretch(pixels), rtol=0, atol=1e-6)


def test_read_image_stretches_rescaled_8_bits(tmp_path):
    pixels = random_pixels(low=50, high=101)
    image = read_image(write_dicom(tmp_path / "a.dcm", pixels, RescaleSlope=2, RescaleIntercept=3))
    np.testing.assert_allclose(image, stretch(pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", ["abcdef", "1\\2", "nan", "inf"])
@pytest.mark.parametrize("tag", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.filterwarnings("ignore")  # pydicom's, of the value
def test_read_image_refuses_a_rescale_that_is_no_number(tmp_path, tag, value):
    path = write_dicom(tmp_path / "a.dcm", random_pixels(np.uint16), **{tag: "111111"})
    content = path.read_bytes()
    assert content.count(b"111111") == 1
    path.write_bytes(content.replace(b"111111", value.ljust(6).encode()))
    refusal(path)


@pytest.mark.parametrize(("dtype", "high"), [(np.uint8, 256), (np.uint16, 4096)])
def test_read_image_inverts_monochrome1(tmp_path, dtype, high):
    pixels = random_pixels(dtype, high=high)
    plain = read_image(write_dicom(tmp_path / "a.dcm", pixels))
    path = write_dicom(tmp_path / "b.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path), 1 - plain)


@pytest.mark.parametrize("value", [0, 700])
def test_read_image_gives_zeros_for_a_constant_image(tmp_path, value):
    image = read_image(write_dicom(tmp_path / "a.dcm", np.full((5, 6), value, np.uint16)))
    np.testing.assert_array_equal(image, np.zeros((5, 6), np.float32))


# Colour


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the spelling
@pytest.mark.parametrize("kind", [" MONOCHROME1", "monochrome1", "Monochrome2 "])
@pytest.mark.parametrize("write", [write_dicom, write_challenge_dicom])
def test_read_image_takes_other_spellings_of_grey(tmp_path, kind, write):
    pixels = random_pixels(shape=(16, 16))
    image = read_image(write(tmp_path / "a.dcm", pixels, PhotometricInterpretation=kind))
    usual = kind.strip().upper()
    expected = read_image(write(tmp_path / "b.dcm", pixels, PhotometricInterpretation=usual))
    np.testing.assert_array_equal(image, expected)
    assert image_size(tmp_path / "a.dcm") == (16, 16)


def test_read_image_takes_equal_planes_as_grey(tmp_path):
    pixels = random_pixels()
    image = read_image(write_dicom(tmp_path / "a.dcm", np.stack([pixels] * 3, axis=2)))
    np.testing.assert_array_equal(image, pixels / np.float32(255))


def test_read_image_takes_equal_planes_one_after_the_other_as_grey(tmp_path):
    pixels = random_pixels()
    data = np.stack([pixels] * 3).tobytes()
    dataset = make_dataset(np.stack([pixels] * 3, axis=2), PlanarConfiguration=1, PixelData=data)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), pixels / np.float32(255))


def test_read_image_takes_luminance_without_colour_as_grey(tmp_path):
    pixels = random_pixels()
    grey = np.full_like(pixels, 128)
    ybr = np.stack([pixels, grey, grey], axis=2)
    path = write_dicom(tmp_path / "a.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(read_image(path), pixels / np.float32(255))


def write_rle(path, pixels, **tags):
    dataset = make_dataset(pixels)
    dataset.compress(RLELossless)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_untransformed_j2k(path, pixels, **tags):
    stream = bytes(imagecodecs.jpeg2k_encode(pixels, reversible=True, mct=False))
    return write_stream(path, pixels, JPEG2000Lossless, stream, **tags)


@pytest.mark.parametrize("write", [write_rle, write_untransformed_j2k])
def test_read_image_takes_compressed_luminance_without_colour_as_grey(tmp_path, write):
    pixels = random_pixels(shape=(33, 47))
    ybr = np.stack([pixels, np.full_like(pixels, 127), np.full_like(pixels, 132)], axis=2)
    path = write(tmp_path / "a.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(read_image(path), pixels / np.float32(255))
    assert "colour" in refusal(write(path, ybr, PhotometricInterpretation="RGB"))
    ybr[3, 4, 2] = 133
    assert "colour" in refusal(write(path, ybr, PhotometricInterpretation="YBR_FULL"))


def test_read_image_refuses_colour_in_one_pixel(tmp_path):
    pixels = np.stack([random_pixels()] * 3, axis=2)
    pixels[3, 4] = [200, 10, 10]
    assert "colour" in refusal(write_dicom(tmp_path / "a.dcm", pixels))


def test_read_image_refuses_a_palette(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm", random_pixels(), PhotometricInterpretation="PALETTE COLOR"
    )
    assert "PALETTE COLOR" in refusal(path)


# What is no radiograph


def test_read_image_refuses_frames(tmp_path):
    pixels = random_pixels(shape=(8, 6))
    path = write_dicom(tmp_path / "a.dcm", pixels, NumberOfFrames=2, Rows=4)
    assert "2 frames" in refusal(path)


@pytest.mark.filterwarnings("ignore:The number of bytes")
def test_read_image_refuses_frames_that_the_header_hides(tmp_path):
    pixels = np.full((8, 6), 9, np.uint8)
    refusal(write_dicom(tmp_path / "a.dcm", pixels, PixelData=pixels.tobytes() * 2))


@pytest.mark.parametrize(
    ("tag", "cause"),
    [
        ("Rows", "no Rows"),
        ("Columns", "no Rows and Columns"),
        ("BitsAllocated", "BitsAllocated"),
        ("BitsStored", "BitsStored"),
        ("PhotometricInterpretation", "photometric interpretation ''"),
        ("PixelData", "no pixel data"),
    ],
)
def test_read_image_refuses_a_header_without(tmp_path, tag, cause):
    dataset = make_dataset(random_pixels())
    delattr(dataset, tag)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert cause in refusal(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("tags", "cause"),
    [
        ({"Rows": 0}, "0 x 14"),
        ({"Columns": 0}, "11 x 0"),
        ({"BitsAllocated": 12}, "12 bits"),
        ({"SamplesPerPixel": 2}, "truncated"),
        ({"NumberOfFrames": -1}, "-1 frames"),
        ({"PixelRepresentation": 7}, "Pixel Representation"),
        ({"BitsStored": 99}, "Bits Stored"),
    ],
)
def test_read_image_refuses_a_header_with(tmp_path, tags, cause):
    assert cause in refusal(write_dicom(tmp_path / "a.dcm", random_pixels(), **tags))


@pytest.mark.parametrize(
    "content",
    [
        b"patientId,x,y,width,height,Target\n" * 99,
        b"hi",
        bytes(4000),
        bytes(range(256)) * 20,
        *map(encode_picture, (".tiff", ".bmp", ".webp")),
    ],
    ids=["text", "two letters", "zeros", "bytes", "TIFF", "BMP", "WebP"],
)
def test_read_image_refuses_what_is_no_dicom(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    assert "neither a DICOM, PNG nor JPEG file" in refusal(path)
    assert "neither a DICOM, PNG nor JPEG file" in refusal(path, image_size)


def test_read_image_refuses_a_renamed_png(tmp_path):
    Image.fromarray(random_pixels()).save(tmp_path / "a.png")
    path = (tmp_path / "a.png").rename(tmp_path / "a.dcm")
    assert "neither a DICOM, PNG nor JPEG file" in refusal(path)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_read_image_refuses_a_missing_file(tmp_path, read):
    assert "No such file" in refusal(tmp_path / "a.dcm", read)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_read_image_refuses_a_folder(tmp_path, read):
    refusal(tmp_path, read)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_read_image_refuses_an_empty_file(tmp_path, read):
    (tmp_path / "a.dcm").touch()
    assert "empty" in refusal(tmp_path / "a.dcm", read)


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda uid: uid.name)
def test_read_image_refuses_missing_bytes(tmp_path, syntax):
    pixels = random_pixels(np.uint16)
    n_bytes = pixels.nbytes
    path = write_dicom(tmp_path / "a.dcm", pixels, syntax, PixelData=pixels.tobytes()[:-2])
    assert f"truncated: {n_bytes} bytes of pixels declared, {n_bytes - 2}" in refusal(path)


def test_read_image_refuses_pixel_data_without_bytes(tmp_path):
    refusal(write_dicom(tmp_path / "a.dcm", random_pixels(), PixelData=b""))


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_read_image_refuses_a_gigantic_size_without_taking_memory(tmp_path, read, syntax):
    dataset = make_dataset(random_pixels())
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    tracemalloc.start()
    try:
        message = refusal(tmp_path / "a.dcm", read)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "65535 x 65535" in message
    assert peak < 20e6


def test_read_image_refuses_a_jpeg_of_another_size(tmp_path):
    stream = encode_jpeg(random_pixels(shape=(8, 16)))
    path = write_stream(tmp_path / "a.dcm", random_pixels(), JPEGBaseline8Bit, stream)
    assert "header says 11 x 14, JPEG 8 x 16" in refusal(path)


def test_read_image_refuses_half_a_jpeg(tmp_path):
    pixels = random_pixels(shape=(64, 64))
    stream = encode_jpeg(pixels)
    path = write_stream(tmp_path / "a.dcm", pixels, JPEGBaseline8Bit, stream[: len(stream) // 2])
    assert "cannot be decoded" in refusal(path)


END_OF_JPEG = b"\xff\xd9"
ENCODERS = {
    JPEGBaseline8Bit: encode_jpeg,
    JPEGExtended12Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, bitspersample=12, level=95),
    JPEGLosslessSV1: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: encode_j2k,
}


@pytest.mark.parametrize("syntax", ENCODERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_read_image_refuses_a_cut_though_it_has_an_end(tmp_path, syntax, share):
    dtype, high = (np.uint8, 256) if syntax == JPEGBaseline8Bit else (np.uint16, 4096)
    pixels = random_pixels(dtype, high=high, shape=(64, 96))
    tags = {} if syntax == JPEGBaseline8Bit else {"BitsStored": 12, "HighBit": 11}
    stream = bytes(ENCODERS[syntax](pixels))
    read_image(write_stream(tmp_path / "a.dcm", pixels, syntax, stream, **tags))
    start = stream.find(b"\xff\xda") + 14 if END_OF_JPEG in stream else 0
    cut = stream[: start + int(share * (len(stream) - start))] + END_OF_JPEG
    path = write_stream(tmp_path / "a.dcm", pixels, syntax, cut, **tags)
    assert "cannot be decoded" in refusal(path)


def test_read_image_refuses_a_cut_at_a_restart(tmp_path):
    picture = io.BytesIO()
    pixels = random_pixels(shape=(64, 96))
    Image.fromarray(pixels).save(picture, "JPEG", restart_marker_rows=1)
    stream = picture.getvalue()
    tags = {"BitsStored": 8}
    path = write_stream(tmp_path / "a.dcm", pixels, JPEGLosslessSV1, stream, **tags)
    read_image(path)
    for shift in (0, 2):
        cut = stream[: stream.index(b"\xff\xd3") + shift] + END_OF_JPEG
        write_stream(path, pixels, JPEGLosslessSV1, cut, **tags)
        assert "ends before its last pixel" in refusal(path)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless])
def test_read_image_refuses_compressed_rubbish(tmp_path, syntax):
    path = write_stream(tmp_path / "a.dcm", random_pixels(), syntax, b"\xff\xd8" + bytes(100))
    assert "cannot be decoded" in refusal(path)


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the odd ends
def test_read_image_refuses_every_cut(tmp_path):
    content = write_dicom(tmp_path / "whole.dcm", random_pixels(np.uint16)).read_bytes()
    for n_bytes in range(0, len(content), 5):
        (tmp_path / "cut.dcm").write_bytes(content[:n_bytes])
        refusal(tmp_path / "cut.dcm")


@pytest.mark.filterwarnings("ignore")  # pydicom's, of odd values
@pytest.mark.parametrize("compressed", [False, True])
def test_read_image_gives_an_image_or_a_dicom_error_for_any_damage(tmp_path, caplog, compressed):
    caplog.set_level(logging.CRITICAL, logger="pydicom")
    tags = {"RescaleSlope": "1.0", "RescaleIntercept": "0.0", "NumberOfFrames": "1"}
    write = write_challenge_dicom if compressed else write_dicom
    content = write(tmp_path / "whole.dcm", random_pixels(), **tags).read_bytes()
    rng = np.random.default_rng(8)
    path = tmp_path / "damaged.dcm"
    n_refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[rng.integers(128, len(content))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            image = read_image(path)
        except DicomError as error:
            assert str(path) in str(error)
            n_refused += 1
        else:
            assert image.ndim == 2
            assert image.dtype == np.float32
            assert np.all((image >= 0) & (image <= 1))
    assert 0 < n_refused < 400


# image_size


def test_image_size_is_height_then_width(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", random_pixels(shape=(30, 50)))
    assert image_size(path) == read_image(path).shape == (30, 50)


def test_image_size_needs_no_pixels(tmp_path):
    dataset = make_dataset(random_pixels(shape=(30, 50)))
    del dataset.PixelData
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert image_size(tmp_path / "a.dcm") == (30, 50)


def test_image_size_refuses_frames():
    assert "2 frames" in refusal(shared("dicom_samples") / "siim_2frames.dcm", image_size)
