import shutil
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from src.radiographs.image_files import (
    read_any_facts,
    read_any_image,
    read_any_size,
    split_unreadable,
)
from src.radiographs.image_index import index_images
from src.system.errors import InputError
from tests.dicom_files import write_challenge_dicom

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)


def write_picture(path, pixels=PIXELS):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def test_a_png_of_8_bits_is_read_exactly(tmp_path):
    image = read_any_image(write_picture(tmp_path / "a.png"))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, PIXELS)


def test_a_png_of_16_bits_is_read_exactly(tmp_path):
    pixels = PIXELS.astype(np.uint16) * 257
    image = read_any_image(write_picture(tmp_path / "a.png", pixels), grey="range")
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, PIXELS / 255, atol=1e-7)


def test_a_png_of_16_bits_may_hold_fewer(tmp_path):
    pixels = PIXELS.astype(np.uint16) * 16
    image = read_any_image(write_picture(tmp_path / "a.png", pixels))
    low, high = np.percentile(pixels, (0.5, 99.5), method="inverted_cdf")
    np.testing.assert_allclose(
        image, np.clip((pixels - 1.0 * low) / (1.0 * high - low), 0, 1), atol=1e-6
    )


def test_a_png_with_a_grey_palette_is_grey(tmp_path):
    picture = Image.fromarray(PIXELS // 2, "P")
    picture.putpalette([grey for i in range(256) for grey in (255 - i,) * 3])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_any_image(tmp_path / "a.png"), 255 - PIXELS // 2)


def test_a_png_with_a_palette_of_colours_is_refused(tmp_path):
    picture = Image.fromarray(PIXELS // 2, "P")
    picture.putpalette([value for i in range(256) for value in (i, 0, 255 - i)])
    picture.save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: a colour picture"):
        read_any_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_is_black(tmp_path, mode):
    opacity = np.full_like(PIXELS, 255)
    opacity[:5], opacity[5:9] = 0, 51
    planes = [PIXELS] * (len(mode) - 1)
    Image.fromarray(np.dstack([*planes, opacity]), mode).save(tmp_path / "a.png")
    image = read_any_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[9:], PIXELS[9:])
    np.testing.assert_array_equal(image[:5], np.zeros((5, 60)))
    np.testing.assert_array_equal(image[5:9], np.rint(PIXELS[5:9] * np.float32(0.2)))


def test_what_is_transparent_counts_in_no_percentile(tmp_path):
    pixels = PIXELS.astype(np.uint16) * 16
    opacity = np.full_like(pixels, 65535)
    pixels[:5], opacity[:5] = 60_000, 0
    path = write_picture(tmp_path / "a.png", np.dstack([pixels] * 3 + [opacity]))
    image = read_any_image(path)
    assert (image[:5] == 0).all()
    assert image[5:].max() == 1
    assert image[5:].std() > 0.2


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_jpeg_is_turned_as_its_exif_data_say(tmp_path, orientation, order):
    smooth = cv2.GaussianBlur(PIXELS, (0, 0), 3)
    path = write_picture(tmp_path / "a.jpg", smooth)
    mark = b"II" if order == "<" else b"MM"
    tiff = mark + struct.pack(f"{order}HLHHHLHH", 42, 8, 1, 0x112, 3, 1, orientation, 0) + bytes(4)
    exif = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    content = path.read_bytes()
    path.write_bytes(content[:2] + segment + content[2:])
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(read_any_image(path), expected)


def test_broken_exif_data_turn_nothing(tmp_path):
    path = write_picture(tmp_path / "a.jpg")
    content = path.read_bytes()
    whole = read_any_image(path)
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"):
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        path.write_bytes(content[:2] + segment + content[2:])
        np.testing.assert_array_equal(read_any_image(path), whole)


def test_a_picture_is_told_by_its_bytes_not_its_name(tmp_path):
    written = write_picture(tmp_path / "a.jpg", np.full((40, 60), 100, np.uint8))
    renamed = written.rename(tmp_path / "no ending")
    assert read_any_image(renamed) == pytest.approx(100, abs=2)


def test_equal_colour_planes_are_a_grey_picture(tmp_path):
    image = read_any_image(write_picture(tmp_path / "a.png", np.dstack([PIXELS] * 3)))
    np.testing.assert_array_equal(image, PIXELS)
    assert image.flags.c_contiguous


def test_a_colour_picture_is_refused(tmp_path):
    path = write_picture(tmp_path / "a.png", np.dstack([PIXELS, PIXELS // 2, PIXELS // 3]))
    with pytest.raises(InputError, match=r"a\.png: a colour picture"):
        read_any_image(path)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\nrest", b"\xff\xd8\xffrest", b"", b"text"])
def test_broken_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "a file"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a file: "):
        read_any_image(path)


def test_a_dicom_file_is_read_as_such(tmp_path):
    path = write_challenge_dicom(tmp_path / "named.png", PIXELS)
    assert read_any_image(path).shape == PIXELS.shape


def test_unreadable_files_are_told_apart_with_their_cause(tmp_path):
    write_picture(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("notes")
    readable, unreadable = split_unreadable(index_images(tmp_path).files(), n_workers=1)
    assert [file.id for file in readable] == ["a.png"]
    assert [(file.path.name, "neither a DICOM" in file.cause) for file in unreadable] == [
        ("b.txt", True)
    ]


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_size_of_a_jpeg_is_the_upright_one(tmp_path, orientation):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=_exif(orientation))
    assert read_any_size(tmp_path / "a.jpg") == read_any_image(tmp_path / "a.jpg").shape
    facts = read_any_facts(tmp_path / "a.jpg")
    assert (facts.rows, facts.columns) == read_any_size(tmp_path / "a.jpg")


def test_the_size_stands_behind_long_exif_data_too(tmp_path):
    path = write_picture(tmp_path / "a.jpg")
    content = path.read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", 60_002) + bytes(60_000)
    path.write_bytes(content[:2] + segment * 2 + content[2:])
    assert read_any_size(path) == PIXELS.shape


def test_sizes_and_facts_of_other_kinds(tmp_path):
    write_picture(tmp_path / "a.png")
    write_challenge_dicom(tmp_path / "b.png", PIXELS)
    assert read_any_size(tmp_path / "a.png") == read_any_size(tmp_path / "b.png") == PIXELS.shape
    shutil.copy(tmp_path / "a.png", tmp_path / "c.png")
    facts = [read_any_facts(tmp_path / name) for name in ("a.png", "c.png", "b.png")]
    assert facts[0] == facts[1]
    assert facts[0].pixel_digest != facts[2].pixel_digest


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\nrest", b"\xff\xd8\xffrest", b"", b"text"])
def test_the_size_of_a_broken_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "a file"
    path.write_bytes(content)
    for read in (read_any_size, read_any_facts):
        with pytest.raises(InputError, match="a file: "):
            read(path)


def _exif(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif
