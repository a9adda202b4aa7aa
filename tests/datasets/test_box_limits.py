import numpy as np
import pytest

from src.datasets.box_limits import clip_boxes, leaves_image


def test_clip_boxes_leaves_what_lies_inside_bit_for_bit():
    boxes = np.random.default_rng(0).uniform(0, 500, (1000, 4))
    assert (clip_boxes(boxes, (1000, 1000)) == boxes).all()
    assert not leaves_image(boxes, (1000, 1000)).any()


def test_clip_boxes_cuts_off_at_each_border():
    boxes = np.array([[-1.0, 2, 5, 6], [1, -2, 5, 6], [8, 2, 5, 6], [1, 12, 5, 12.0]])
    expected = [[0, 2, 4, 6], [1, 0, 5, 4], [8, 2, 2, 6], [1, 12, 5, 8]]
    assert clip_boxes(boxes, (10, 20)).tolist() == expected
    assert leaves_image(boxes, (10, 20)).all()


@pytest.mark.parametrize(
    ("box", "leaves"),
    [
        ([-0.005, 0, 5, 20], False),
        ([-0.02, 0, 5, 20], True),
        ([5, 0, 5.005, 20], False),
        ([5, 0, 5.02, 20], True),
        ([5, 5, 5, 15.02], True),
        ([10, 0, 0.005, 20], True),
    ],
)
def test_leaves_image_allows_for_rounding(box, leaves):
    assert leaves_image(np.array([box]), (10, 20)).tolist() == [leaves]
