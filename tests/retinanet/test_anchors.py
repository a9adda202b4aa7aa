import json

import numpy as np
import pytest
import torch

from src.retinanet.anchors import count_anchors, make_anchors
from src.retinanet.settings import AnchorShapes
from tests.paths import shared

PAPER = (2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("name", "size", "levels"),
    [
        ("anchors_128_p2", 128, PAPER),
        ("anchors_96_p2", 96, PAPER),
        ("anchors_128_p3", 128, PAPER[1:]),
    ],
)
def test_anchors_equal_the_original_release(name, size, levels):
    golden = np.load(shared("golden") / f"{name}.npz")["anchors"]
    np.testing.assert_allclose(make_anchors((size, size), levels), golden, atol=1e-4)


def test_anchors_at_512_equal_the_original_release():
    facts = json.loads((shared("golden") / "facts.json").read_text())["anchors_512_p2"]
    anchors = make_anchors((512, 512), PAPER)
    assert len(anchors) == facts["count"]
    assert anchors.double().sum().item() == pytest.approx(facts["sum"], rel=1e-7)
    np.testing.assert_allclose(anchors[[0, -1]], [facts["first"], facts["last"]], rtol=1e-6)


def test_anchors_of_a_wide_image_have_centres_on_its_grid():
    anchors = make_anchors((32, 64), (4,))
    assert len(anchors) == count_anchors((32, 64), 4) == 2 * 4 * 9
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = [[x, y] for y in (8, 24) for x in (8, 24, 40, 56) for _ in range(9)]
    torch.testing.assert_close(centers, torch.tensor(expected).float(), atol=1e-4, rtol=0)


def test_paper_levels_hold_three_quarters_of_the_anchors_on_p2():
    assert count_anchors((512, 512), 2) == 147_456
    assert sum(count_anchors((512, 512), level) for level in PAPER) == 196_560


def test_anchors_follow_their_shapes():
    shapes = AnchorShapes(size=2, ratios=(4.0,), scales=(1.0, 3.0))
    anchors = make_anchors((32, 32), (4,), shapes)
    assert len(anchors) == count_anchors((32, 32), 4, shapes) == 2 * 2 * 2
    # The side is 2 strides of 16 pixels, times the scale; four times as high as wide.
    sizes = (anchors[:2, 2:] - anchors[:2, :2]).tolist()
    assert sizes == [[16, 64], [48, 192]]
