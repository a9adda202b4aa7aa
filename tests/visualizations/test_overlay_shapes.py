import numpy as np
import pytest

from src.prediction.postprocess import choose_boxes
from src.prediction.presets import Postprocess
from src.prediction.provenance import Provenance
from src.visualizations.overlays import (
    CAPTION_HEIGHT,
    FOUND_COLOUR,
    MAX_SIDE,
    SHEET_TILE,
    TRUE_COLOUR,
    contact_sheet,
    draw_overlay,
    draw_predictions,
    sheet_tile,
)
from tests.made_predictions import make_predictions

NO_BOXES, NO_SCORES = np.zeros((0, 4)), np.zeros(0, np.float32)


def overlay(image, caption=""):
    return draw_overlay(image, true_boxes_xyxy=NO_BOXES, boxes_xyxy=NO_BOXES, scores=NO_SCORES,
                        caption=caption)  # fmt: skip


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 1024), (1024, 1024)),
        ((700, 300), (700, 300)),
        ((192, 96), (576, 288)),
        ((4000, 3000), (MAX_SIDE, 1152)),
        ((100, 50_000), (3, MAX_SIDE)),
        ((1, 9000), (1, MAX_SIDE)),
        ((1, 1), (512, 512)),
    ],
)
def test_a_picture_has_the_shape_of_its_image(size, expected):
    for image in (np.full(size, 90, np.uint8), np.full(size, 90 / 255, np.float32)):
        picture = overlay(image)
        assert picture.shape == (*expected, 3)
        assert abs(picture.astype(int) - 90).max() <= 1
        assert overlay(image, "a").shape[1] == expected[1]


def test_text_grows_with_large_pictures_alone():
    small, large = (overlay(np.zeros((side, side), np.uint8), "a") for side in (640, 1280))
    assert small.shape[0] - 640 == CAPTION_HEIGHT
    assert large.shape[0] - 1280 == 2 * CAPTION_HEIGHT


def places_of(picture, colour):
    """Return where a colour begins and ends: x, y, x2, y2."""
    rows, columns = np.nonzero((np.abs(picture.astype(int) - colour) < 40).all(axis=-1))
    return [columns.min(), rows.min(), columns.max(), rows.max()]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, ([100, 100, 300, 200], [400, 100, 600, 200])),
        # The input shows the central square of 200 x 200 pixels of the file.
        ({"source_crop": 200}, ([325, 150, 375, 200], [400, 150, 450, 200])),
        # The input shows the square of 800 x 800 pixels around the file.
        ({"fit": "pad"}, ([100, 0, 300, 200], [400, 0, 600, 200])),
    ],
)
def test_boxes_lie_in_the_pixels_of_a_file_of_any_shape(shown, expected):
    true, found = [24, 48, 72, 96], [96, 48, 144, 96]  # of an input of 192 pixels
    predictions = make_predictions(([true], [(found, 0.9)]))
    predictions.image_sizes[:] = 400, 800
    object.__setattr__(predictions, "provenance", Provenance(img_size=192, **shown))
    chosen = choose_boxes(predictions, Postprocess(threshold=0.0))
    picture = draw_predictions(np.zeros((400, 800), np.uint8), predictions, chosen, 0)[:400]
    np.testing.assert_allclose(places_of(picture, TRUE_COLOUR), expected[0], atol=3)
    np.testing.assert_allclose(places_of(picture, FOUND_COLOUR)[2:], expected[1][2:], atol=3)


def test_a_file_drawn_at_another_scale_has_its_boxes_there():
    predictions = make_predictions(([[48, 48, 96, 96]], []))
    chosen = choose_boxes(predictions, Postprocess())
    picture = draw_predictions(np.zeros((512, 1024), np.uint8), predictions, chosen, 0)[:512]
    np.testing.assert_allclose(places_of(picture, TRUE_COLOUR), [256, 128, 512, 256], atol=3)


def test_a_sheet_holds_pictures_of_any_shape():
    shapes = [(400, 400), (800, 400), (100, 400), (5, 2000)]
    pictures = [np.full((*shape, 3), 255, np.uint8) for shape in shapes]
    sheet = contact_sheet(pictures)
    assert sheet.shape == (SHEET_TILE, 4 * SHEET_TILE, 3)
    tiles = np.split(sheet, 4, axis=1)
    assert [int((tile > 0).any(axis=(1, 2)).sum()) for tile in tiles] == [
        SHEET_TILE, SHEET_TILE, SHEET_TILE // 4, 1
    ]  # fmt: skip
    assert (tiles[1] > 0).any(axis=(0, 2)).sum() == SHEET_TILE // 2
    assert np.array_equal(contact_sheet([sheet_tile(picture) for picture in pictures]) > 127,
                          sheet > 127)  # fmt: skip
