import numpy as np
import pytest

from src.visualizations.examples import draw_examples, pick_examples
from src.visualizations.overlays import FOUND_COLOUR, SHEET_TILE, TRUE_COLOUR
from tests.made_predictions import make_predictions
from tests.visualizations.test_overlays import has_colour

BOX, OTHER = [20, 30, 80, 120], [100, 60, 160, 150]


@pytest.mark.parametrize(
    ("n_boxes", "n_images", "picked"),
    [
        ([0, 2, 0, 1, 1, 3, 0], 4, [1, 3, 4, 0]),
        ([0, 2, 0, 1, 1, 3, 0], 6, [1, 3, 4, 5, 0, 2]),
        ([0, 2, 0, 0, 0], 4, [1, 0, 2, 3]),
        ([1, 2, 1, 1, 1], 4, [0, 1, 2, 3]),
        ([0, 1], 4, [1, 0]),
        ([], 4, []),
    ],
)
def test_examples_are_images_with_boxes_and_some_without(n_boxes, n_images, picked):
    assert pick_examples(n_boxes, n_images) == picked


class Images:
    """Gives every image, and remembers which were asked for."""

    def __init__(self):
        self.read_ids = []

    def read(self, patient_id, *, grey="viewer"):
        self.read_ids.append(patient_id)
        return np.zeros((1024, 1024), np.uint8)


def test_a_picture_shows_truth_and_boxes_that_count_of_the_examples_alone():
    with_box = ([BOX], [(OTHER, 0.9), (BOX, 0.02)])
    predictions = make_predictions(([], []), *[with_box] * 4, ([], []))
    images = Images()
    picture = draw_examples(images, predictions)
    ids = predictions.ids.tolist()
    assert images.read_ids == [ids[1], ids[2], ids[3], ids[0]]
    assert picture.shape[1:] == (4 * SHEET_TILE, 3)
    tiles = [picture[:SHEET_TILE, i * SHEET_TILE : (i + 1) * SHEET_TILE] for i in range(4)]
    left = [tile[:, : SHEET_TILE // 2] for tile in tiles]
    assert [has_colour(part, TRUE_COLOUR).any() for part in left] == [True] * 3 + [False]
    assert [has_colour(tile, FOUND_COLOUR).any() for tile in tiles] == [True] * 3 + [False]
    assert not any(has_colour(part, FOUND_COLOUR).any() for part in left)  # .02 x 5 does not count
