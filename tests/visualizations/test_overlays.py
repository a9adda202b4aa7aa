import numpy as np
import pytest

from src.prediction.postprocess import choose_boxes
from src.prediction.presets import Postprocess
from src.visualizations.overlays import (
    CAPTION_HEIGHT,
    FOUND_COLOUR,
    SHEET_TILE,
    TRUE_COLOUR,
    contact_sheet,
    draw_overlay,
    draw_predictions,
    save_picture,
)
from tests.made_predictions import random_predictions, three_boxes

GREY = np.full((192, 192), 0.5, np.float32)
NO_BOXES, NO_SCORES = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


def overlay(image=GREY, *, true=(), found=(), caption=""):
    found = np.array(found, np.float32).reshape(-1, 4)
    return draw_overlay(
        image,
        true_boxes_xyxy=np.array(true, np.float32).reshape(-1, 4),
        boxes_xyxy=found,
        scores=np.full(len(found), 0.87, np.float32),
        caption=caption,
    )


def has_colour(picture, colour):
    """(H, W) where a picture has about this colour."""
    return (np.abs(picture.astype(int) - colour) < 40).all(axis=-1)


def test_a_small_image_is_enlarged_and_stays_grey():
    picture = overlay()
    assert picture.shape == (576, 576, 3)
    assert (picture == 127).all()
    assert overlay(np.zeros((1024, 1024), np.float32)).shape == (1024, 1024, 3)


def test_a_found_box_lies_at_its_pixels():
    picture = overlay(np.zeros((600, 600), np.float32), found=[[100, 200, 300, 400]])
    orange = has_colour(picture, FOUND_COLOUR)
    for row, column in ((300, 100), (300, 300), (200, 250), (400, 250)):
        assert orange[row, column]
    rows, columns = np.nonzero(orange)
    assert columns.min() >= 98
    assert columns.max() <= 302
    assert rows.max() <= 402
    assert not orange[210:395, 110:290].any()
    assert not has_colour(picture, TRUE_COLOUR).any()


def test_a_true_box_is_dashed_in_its_own_colour():
    picture = overlay(np.zeros((600, 600), np.float32), true=[[100, 200, 300, 400]])
    blue = has_colour(picture, TRUE_COLOUR)
    rows, columns = np.nonzero(blue)
    assert (columns.min(), rows.min()) == pytest.approx((100, 200), abs=2)
    assert (columns.max(), rows.max()) == pytest.approx((300, 400), abs=2)
    for edge in (blue[200:401, 100], blue[200:401, 300], blue[200, 100:301], blue[400, 100:301]):
        assert 0.3 < edge.mean() < 0.9
    assert not has_colour(picture, FOUND_COLOUR).any()


def test_boxes_are_enlarged_with_the_image():
    blue = has_colour(overlay(true=[[20, 30, 60, 90]]), TRUE_COLOUR)
    rows, columns = np.nonzero(blue)
    assert (columns.min(), rows.min()) == pytest.approx((60, 90), abs=2)
    assert (columns.max(), rows.max()) == pytest.approx((180, 270), abs=2)
    orange = has_colour(overlay(found=[[20, 30, 60, 90]]), FOUND_COLOUR)
    assert orange[200, 60]
    assert orange[200, 180]
    assert orange[270, 120]


def test_both_kinds_of_boxes_are_drawn():
    picture = overlay(true=[[10, 20, 60, 90]], found=[[100, 110, 150, 160]])
    assert has_colour(picture, TRUE_COLOUR)[:300, :200].any()
    assert has_colour(picture, FOUND_COLOUR)[310:, 290:].any()


def test_a_score_stands_above_its_box_and_inside_the_picture():
    inner = overlay(np.zeros((600, 600), np.float32), found=[[100, 200, 300, 400]])
    assert has_colour(inner, FOUND_COLOUR)[180:197, 100:150].any()
    at_the_top = overlay(np.zeros((600, 600), np.float32), found=[[100, 0, 300, 400]])
    assert has_colour(at_the_top, FOUND_COLOUR)[4:16, 104:140].any()


def test_the_caption_is_a_strip_below_the_image():
    plain, captioned = overlay(), overlay(caption="patient 7")
    assert captioned.shape == (576 + CAPTION_HEIGHT, 576, 3)
    assert np.array_equal(captioned[:576], plain)
    assert captioned[576:].max() > 200


def test_draw_predictions_leaves_out_weak_and_overlapping_boxes():
    image = np.zeros((192, 192), np.float32)
    predictions = three_boxes()
    shown = {}
    for threshold, nms in ((0.0, 1.0), (0.0, 0.5), (4.2, 1.0), (5.0, 1.0)):
        chosen = choose_boxes(predictions, Postprocess(threshold=threshold, nms=nms))
        picture = draw_predictions(image, predictions, chosen, 0)
        orange = has_colour(picture, FOUND_COLOUR)
        shown[threshold, nms] = (orange[200, 48], orange[120, 60:130].any(), orange[300, 300])
    assert shown == {
        (0.0, 1.0): (True, True, True),
        (0.0, 0.5): (True, False, True),  # the second overlaps the first
        (4.2, 1.0): (True, False, False),  # .9 x 5 > 4.2
        (5.0, 1.0): (False, False, False),
    }


def test_draw_predictions_shows_the_truth_of_its_own_image():
    predictions = random_predictions(n_images=12)
    with_truth = int(np.argmax(np.diff(predictions.true_offsets) > 0))
    without = int(np.argmax(np.diff(predictions.true_offsets) == 0))
    image = np.zeros((192, 192), np.float32)
    chosen = choose_boxes(predictions, Postprocess(threshold=5.0))
    for index, expected in ((with_truth, True), (without, False)):
        picture = draw_predictions(image, predictions, chosen, index)
        assert has_colour(picture[:576], TRUE_COLOUR).any() == expected


def test_a_picture_is_saved_in_its_colours(tmp_path, read_picture):
    picture = overlay(found=[[20, 30, 60, 90]], caption="a")
    path = tmp_path / "new folder" / "a.png"
    save_picture(path, picture)
    np.testing.assert_array_equal(read_picture(path), picture)
    assert list(path.parent.iterdir()) == [path]


def test_a_contact_sheet_lays_pictures_out_in_rows_of_four():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    pictures = [np.full((576, 768, 3), colour, np.uint8) for colour in colours]
    sheet = contact_sheet(pictures)
    height = SHEET_TILE * 3 // 4
    assert sheet.shape == (2 * height, 4 * SHEET_TILE, 3)
    for i, colour in enumerate(colours):
        row, column = divmod(i, 4)
        tile = sheet[row * height :, column * SHEET_TILE :][:height, :SHEET_TILE]
        assert (tile == colour).all()
    assert contact_sheet(pictures[:2]).shape == (height, 2 * SHEET_TILE, 3)
