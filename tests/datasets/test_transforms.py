from dataclasses import replace

import numpy as np
import pytest

from src.datasets.transforms import (
    Crop,
    central_crop,
    drop_boxes_outside,
    reduce_by_area,
    take_every_nth,
    warp_boxes,
    warp_image,
)
from src.structures import ShownArea
from tests import plain_ways
from tests.paths import shared

# OpenCV 5 computes the weights of a bilinear interpolation in float32, scikit-image in float64: on
# the golden crops that comes to .007 of 255 grey levels. OpenCV 4 rounded positions to 1/32 pixel,
# up to 4 levels away, and would fail.
MAX_GREY_DIFFERENCE = 0.02 / 255

PLAIN = Crop(size=256, center_xy=(256.0, 256.0), scale_xy=(0.5, 0.5))
BENT = {
    "plain": PLAIN,
    "moved": replace(PLAIN, center_xy=(270.0, 230.0)),
    "stretched": replace(PLAIN, scale_xy=(0.45, 0.56)),
    "turned": replace(PLAIN, angle=8.0),
    "turned back": replace(PLAIN, angle=-8.0),
    "sheared": replace(PLAIN, shear=6.0),
    "all": Crop(256, (262.0, 250.0), (0.47, 0.54), angle=-5.0, shear=4.0),
}
BOX_XYWH = np.array([[120.0, 180.0, 130.0, 90.0]])


def golden_geometry():
    """Return the golden arrays and the crop of each case."""
    golden = np.load(shared("golden") / "geometry.npz")
    crops = [
        Crop(int(size), (x, y), (scale_x, scale_y), angle=angle, shear=shear)
        for size, x, y, scale_x, scale_y, angle, shear in golden["params"]
    ]
    return golden, crops


def draw_box(box_xywh, size=512):
    """Return a black image with a white box."""
    x, y, w, h = (int(value) for value in box_xywh)
    image = np.zeros((size, size), np.float32)
    image[y : y + h, x : x + w] = 1
    return image


def bright_hull(image):
    """Return xyxy of the pixels above 1/2, their far edges included."""
    rows, columns = np.nonzero(image > 0.5)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def random_image(size):
    return np.random.default_rng(3).random((size, size), dtype=np.float32)


def areas(boxes_xyxy):
    return np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)


# Against scikit-image's numbers


def test_crop_matrix_equals_the_golden_matrices():
    golden, crops = golden_geometry()
    matrices = [crop.matrix() for crop in crops]
    np.testing.assert_allclose(matrices, golden["matrices"], rtol=0, atol=1e-9)


def test_warp_boxes_equals_the_golden_boxes():
    golden, crops = golden_geometry()
    boxes = [warp_boxes(golden["boxes_in_xywh"], crop) for crop in crops]
    np.testing.assert_allclose(boxes, golden["boxes_out_xyxy"], rtol=0, atol=1e-9)


def test_warp_image_equals_the_golden_crops():
    golden, crops = golden_geometry()
    image = golden["image"].astype(np.float32) / np.float32(255)
    warped = [warp_image(image, crop) for crop in crops]
    np.testing.assert_allclose(warped, golden["crops"], rtol=0, atol=MAX_GREY_DIFFERENCE)


# By hand


@pytest.mark.parametrize(
    ("crop", "point", "expected"),
    [
        (Crop(10, (50.0, 60.0), (1.0, 1.0)), (5, 5), (50, 60)),
        (Crop(10, (50.0, 60.0), (0.5, 0.25)), (10, 10), (60, 80)),
        (Crop(10, (50.0, 60.0), (1.0, 1.0), angle=90.0), (10, 5), (50, 65)),
        (Crop(10, (50.0, 60.0), (1.0, 1.0), shear=45.0), (5, 10), (45, 65)),
        (Crop(10, (50.0, 60.0), (1.0, 1.0), hflip=True), (0, 3), (54, 58)),
    ],
    ids=["centre", "scale", "angle", "shear", "flip"],
)
def test_crop_matrix_leads_to_the_source(crop, point, expected):
    found = crop.matrix() @ [*point, 1]
    np.testing.assert_allclose(found, [*expected, 1], rtol=0, atol=1e-9)


# Images


def test_warp_image_takes_every_second_pixel_in_validation():
    image = random_image(1024)
    warped = warp_image(image, central_crop((1024, 1024), 512))
    np.testing.assert_array_equal(warped, image[::2, ::2])


@pytest.mark.parametrize("size", [1024, 256])
def test_warp_image_takes_every_nth_pixel(size):
    image = random_image(1024)
    step = 1024 // size
    warped = warp_image(image, central_crop((1024, 1024), size))
    np.testing.assert_array_equal(warped, image[::step, ::step])


def test_warp_image_mirrors_the_crop():
    image = random_image(512)
    crop = central_crop((512, 512), 256)
    mirrored = warp_image(image, replace(crop, hflip=True))
    np.testing.assert_array_equal(mirrored, warp_image(image, crop)[:, ::-1])


def test_warp_image_mirrors_a_bent_crop():
    image = random_image(512)
    mirrored = warp_image(image, replace(BENT["all"], hflip=True))
    np.testing.assert_allclose(mirrored, warp_image(image, BENT["all"])[:, ::-1], atol=1e-3)


def test_warp_image_is_black_outside():
    warped = warp_image(np.ones((512, 512), np.float32), replace(PLAIN, center_xy=(0.0, 256.0)))
    assert np.all(warped[:, :127] == 0)
    assert np.all(warped[:, 129:] == 1)


def test_warp_image_squeezes_a_landscape_into_the_square():
    image = random_image(600)[:300, :500]
    warped = warp_image(image, central_crop((300, 500), 100))
    np.testing.assert_allclose(warped, image[::3, ::5], rtol=0, atol=1e-3)


def test_warp_image_returns_float32_of_the_crops_size():
    warped = warp_image(random_image(64), BENT["all"])
    assert warped.shape == (256, 256)
    assert warped.dtype == np.float32


@pytest.mark.parametrize("name", sorted(BENT))
def test_warp_image_of_8_bits_is_that_of_floats_rounded(name):
    image = np.random.default_rng(3).integers(0, 256, (512, 512)).astype(np.uint8)
    warped = warp_image(image, BENT[name])
    exact = warp_image(image.astype(np.float32), BENT[name])
    assert warped.dtype == np.uint8
    assert np.abs(warped - exact).max() < 0.501


def test_warp_image_of_8_bits_equals_skimage_rounded():
    image = np.random.default_rng(4).integers(0, 256, (300, 400)).astype(np.uint8)
    crop = replace(BENT["all"], center_xy=(190.0, 150.0))
    expected = plain_ways.warp_image(image.astype(float), crop)
    assert np.abs(warp_image(image, crop) - expected).max() < 0.51


@pytest.mark.parametrize(
    ("source_size", "size", "source_crop"),
    [((128, 128), 64, None), ((128, 128), 128, None), ((96, 384), 32, None), ((90, 70), 20, 40)],
)
def test_take_every_nth_equals_the_warp(source_size, size, source_crop):
    image = random_image(400)[: source_size[0], : source_size[1]]
    crop = central_crop(source_size, size, ShownArea(source_crop=source_crop))
    taken = take_every_nth(image, crop)
    assert taken is not None
    np.testing.assert_array_equal(taken, warp_image(image, crop))


@pytest.mark.parametrize(
    "crop",
    [
        central_crop((100, 100), 64),
        central_crop((65, 65), 32, ShownArea(source_crop=64)),
        replace(central_crop((100, 100), 50), angle=1.0),
        replace(central_crop((100, 100), 50), shear=1.0),
        replace(central_crop((100, 100), 50), hflip=True),
        central_crop((100, 100), 200),
        Crop(4, (64.0, 64.0), (1.0, 1.0), shear=45.0),
        central_crop((100, 100), 60, ShownArea(source_crop=120)),
        central_crop((50, 100), 50, ShownArea(fit="pad")),
        Crop(4, (-6.0, 50.0), (1.0, 1.0)),
        Crop(4, (99.0, 50.0), (1.0, 1.0)),
    ],
    ids=[
        "fraction",
        "half a pixel",
        "angle",
        "shear",
        "mirror",
        "larger",
        "45 degrees",
        "around",
        "padded",
        "left",
        "edge",
    ],
)
def test_take_every_nth_leaves_what_needs_more(crop):
    assert take_every_nth(random_image(100), crop) is None


# Boxes


def test_warp_boxes_halves_the_whole_image_in_validation():
    boxes = warp_boxes(np.array([[0.0, 0.0, 1024.0, 1024.0]]), central_crop((1024, 1024), 512))
    np.testing.assert_allclose(boxes, [[0, 0, 512, 512]], rtol=0, atol=1e-9)


def test_warp_boxes_through_the_identity_changes_the_format_alone():
    boxes = warp_boxes(BOX_XYWH, central_crop((1024, 1024), 1024))
    np.testing.assert_allclose(boxes, [[120, 180, 250, 270]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("points", ["thirds", "corners"])
def test_warp_boxes_keeps_no_boxes(points):
    assert warp_boxes(np.zeros((0, 4)), BENT["all"], points).shape == (0, 4)


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("name", BENT)
def test_warp_boxes_goes_where_the_pixels_go(name, hflip):
    crop = replace(BENT[name], hflip=hflip)
    hull = bright_hull(warp_image(draw_box(BOX_XYWH[0]), crop))
    # Pixels have an extent, points have none: hull and box agree to about a pixel.
    np.testing.assert_allclose(warp_boxes(BOX_XYWH, crop, "corners")[0], hull, rtol=0, atol=1.5)


def test_warp_boxes_covers_the_very_pixels_of_a_straight_crop():
    hull = bright_hull(warp_image(draw_box(BOX_XYWH[0]), PLAIN))
    np.testing.assert_allclose(warp_boxes(BOX_XYWH, PLAIN)[0], hull, rtol=0, atol=1e-9)


@pytest.mark.parametrize("points", ["thirds", "corners"])
def test_warp_boxes_keeps_the_size_when_mirrored(points):
    plain = warp_boxes(BOX_XYWH, PLAIN, points)[0]
    mirrored = warp_boxes(BOX_XYWH, replace(PLAIN, hflip=True), points)[0]
    np.testing.assert_allclose(mirrored[[1, 3]], plain[[1, 3]], rtol=0, atol=1e-9)
    assert mirrored[2] - mirrored[0] == pytest.approx(plain[2] - plain[0], abs=1e-9)


@pytest.mark.parametrize("angle", [-6.0, 2.0, 6.0])
def test_warp_boxes_by_thirds_is_tighter_than_by_corners(angle):
    crop = replace(PLAIN, angle=angle)
    true_area = np.prod(BOX_XYWH[0, 2:]) * 0.25
    thirds, corners = (
        areas(warp_boxes(BOX_XYWH, crop)),
        areas(warp_boxes(BOX_XYWH, crop, "corners")),
    )
    assert thirds < corners
    assert abs(thirds - true_area) < abs(corners - true_area)


def test_warp_boxes_by_thirds_equals_corners_without_rotation():
    crop = BENT["stretched"]
    np.testing.assert_allclose(
        warp_boxes(BOX_XYWH, crop), warp_boxes(BOX_XYWH, crop, "corners"), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((10, 10, 20, 20), True),
        ((-5, -5, 1, 1), True),  # over the border
        ((90, 90, 120, 120), True),
        ((-50, -50, 150, 150), True),
        ((-20, 10, 0, 20), False),
        ((10, -20, 20, -1), False),
        ((100, 10, 120, 20), False),
        ((10, 101, 20, 120), False),
        ((-20, 120, -1, 130), False),
    ],
)
def test_drop_boxes_outside_keeps_what_shares_pixels(box, kept):
    boxes = np.array([box], dtype=float)
    np.testing.assert_array_equal(drop_boxes_outside(boxes, 100), boxes if kept else boxes[:0])


def test_drop_boxes_outside_keeps_the_others_in_order():
    boxes = np.array([[50.0, 50, 60, 60], [200, 0, 210, 10], [10, 10, 20, 20]])
    np.testing.assert_array_equal(drop_boxes_outside(boxes, 100), boxes[[0, 2]])


def test_drop_boxes_outside_keeps_no_boxes():
    assert drop_boxes_outside(np.zeros((0, 4)), 100).shape == (0, 4)


@pytest.mark.parametrize("size", [(1024, 1024), (300, 500)])
def test_central_crop_shows_all_by_default(size):
    height, width = size
    boxes = warp_boxes(np.array([[0.0, 0.0, width, height]]), central_crop(size, 64))
    np.testing.assert_allclose(boxes, [[0, 0, 64, 64]], rtol=0, atol=1e-9)


def test_central_crop_shows_the_pixels_of_the_central_square():
    image = random_image(512)
    warped = warp_image(image, central_crop((512, 512), 128, ShownArea(source_crop=256)))
    np.testing.assert_array_equal(warped, image[128:384:2, 128:384:2])


@pytest.mark.parametrize("size", [(1024, 1024), (300, 500)])
def test_central_crop_does_not_squeeze_the_central_square(size):
    height, width = size
    box = np.array([[width / 2 - 100, height / 2 - 100, 200.0, 200.0]])
    boxes = warp_boxes(box, central_crop(size, 64, ShownArea(source_crop=200)))
    np.testing.assert_allclose(boxes, [[0, 0, 64, 64]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (301, 128)])
def test_central_crop_keeps_the_ratio_of_sides_where_it_pads(size):
    height, width = size
    crop = central_crop(size, 64, ShownArea(fit="pad"))
    (x, y, x2, y2) = warp_boxes(np.array([[0.0, 0.0, width, height]]), crop)[0]
    assert max(x2 - x, y2 - y) == pytest.approx(64)
    assert (x2 - x) / (y2 - y) == pytest.approx(width / height)
    assert (x + x2, y + y2) == pytest.approx((64, 64))


# reduce_by_area


def large_crop(**changes):
    """Return a crop of 100 x 100 pixels out of 600 x 500."""
    return replace(Crop(100, (310.0, 240.0), (0.23, 0.19)), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"angle": 9.0},
        {"shear": 5.0},
        {"angle": -12.0, "shear": 4.0, "hflip": True},
        {"hflip": True},
        {"scale_xy": (0.3, 1.5)},
    ],
    ids=str,
)
def test_reduce_by_area_leaves_every_place_where_boxes_have_it(changes):
    """Pictures whose values are the places of their pixels' middles show where pixels come from."""
    crop = large_crop(**changes)
    middles_x, middles_y = np.meshgrid(np.arange(600) + 0.5, np.arange(500) + 0.5)
    inside = slice(20, 80)
    rows, columns = np.mgrid[inside, inside] + 0.5
    unflipped = replace(crop, hflip=False).matrix()
    columns = 100 - columns if crop.hflip else columns
    for middles, row in ((middles_x, unflipped[0]), (middles_y, unflipped[1])):
        smaller, new_crop = reduce_by_area(middles.astype(np.float32), crop)
        found = warp_image(smaller, new_crop)[inside, inside]
        expected = row[0] * columns + row[1] * rows + row[2]
        assert np.abs(found - expected).max() < 0.1  # of a source pixel


def test_reduce_by_area_averages_noise_away():
    noise = np.random.default_rng(0).normal(0, 1, (500, 600)).astype(np.float32)
    smaller, crop = reduce_by_area(noise, large_crop())
    assert warp_image(smaller, crop)[5:-5, 5:-5].std() < 0.3
    assert warp_image(noise, large_crop())[5:-5, 5:-5].std() > 0.5


def test_reduce_by_area_leaves_what_is_enlarged():
    image, crop = random_image(64), Crop(100, (32.0, 32.0), (2.0, 1.5))
    smaller, same = reduce_by_area(image, crop)
    assert smaller is image
    assert same is crop
