import numpy as np
import pytest

from src.scoring.froc import (
    FALSE_POSITIVES,
    false_positives_reached,
    froc_curve,
    froc_sensitivity,
    mean_froc_sensitivity,
)
from src.scoring.ranked_boxes import DrawnBoxes, coco_hits, rank_boxes
from tests.made_scored_images import chosen_images, ones, random_images, scored_images

BOX, FAR = [0.0, 0, 10, 10], [500.0, 500, 10, 10]


def plain_sensitivity(data, level):
    """Try every score as the threshold."""
    hits = coco_hits(data.predicted, data.true, (0.4,))[:, 0]
    best = 0.0
    for score in data.scores:
        counted = data.scores >= score
        if (counted & ~hits).sum() / len(data.ids) <= level:
            best = max(best, (counted & hits).sum() / len(data.true.xywh))
    return best


def drawn_of(data, weights=None):
    return DrawnBoxes(rank_boxes(data), ones(data) if weights is None else weights)


@pytest.mark.parametrize("grid", [None, 6])
def test_sensitivity_is_that_of_every_score_tried(grid):
    rng = np.random.default_rng(3)
    data = random_images(rng, 40, grid=grid, ties_within=True, max_boxes=25)
    weights = np.vstack([ones(data), rng.integers(0, 4, (4, 40))])
    drawn = drawn_of(data, weights)
    drawn_data = [chosen_images(data, np.repeat(np.arange(40), row)) for row in weights]
    levels = [*FALSE_POSITIVES, 0.3]
    values = np.array([froc_sensitivity(drawn, level) for level in levels])
    expected = [[plain_sensitivity(each, level) for each in drawn_data] for level in levels]
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert (np.ptp(values, axis=0) > 0.2).all()
    np.testing.assert_allclose(mean_froc_sensitivity(drawn), values[:-1].mean(axis=0))


def test_sensitivity_of_a_case_by_hand():
    data = scored_images(
        [
            ([BOX, FAR], np.array([0.9, 0.8]), [BOX, [50.0, 50, 9, 9]]),
            ([FAR, BOX], np.array([0.8, 0.7]), [BOX]),
            ([], np.zeros(0), []),
            ([], np.zeros(0), []),
        ]
    )
    # The false positives share a score: the curve goes from 0 to 2 of 4 images at once.
    values = [froc_sensitivity(drawn_of(data), level)[0] for level in (0.125, 0.25, 0.5, 8)]
    assert values == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert false_positives_reached(drawn_of(data))[0] == 0.5


def test_a_hit_needs_all_false_positives_of_its_score():
    data = scored_images([([BOX, FAR], np.array([0.5, 0.5]), [BOX])])
    values = [froc_sensitivity(drawn_of(data), level)[0] for level in (0.5, 1)]
    assert values == [0, 1]


def test_more_false_positives_than_were_saved_give_the_last_point():
    data = random_images(np.random.default_rng(4), 50, max_boxes=6)
    drawn = drawn_of(data)
    reached = false_positives_reached(drawn)[0]
    hits = coco_hits(data.predicted, data.true, (0.4,))[:, 0]
    assert 0.5 < reached < 4
    assert reached == pytest.approx((~hits).sum() / 50)
    last = hits.sum() / len(data.true.xywh)
    assert [froc_sensitivity(drawn, level)[0] for level in (4, 8)] == pytest.approx([last, last])
    assert froc_sensitivity(drawn, 0.5)[0] < last


def test_without_true_boxes_sensitivity_is_undefined_and_false_positives_are_not():
    data = scored_images([([BOX, FAR], np.array([0.5, 0.4]), []), ([], np.zeros(0), [])])
    assert np.isnan(froc_sensitivity(drawn_of(data), 1.0)).all()
    assert np.isnan(mean_froc_sensitivity(drawn_of(data))).all()
    assert false_positives_reached(drawn_of(data))[0] == 1


def test_without_found_boxes_sensitivity_is_zero():
    data = scored_images([([], np.zeros(0), [BOX])])
    assert froc_sensitivity(drawn_of(data), 1.0)[0] == 0
    assert false_positives_reached(drawn_of(data))[0] == 0


def test_the_curve_has_a_point_for_each_score_of_a_hit():
    found = [BOX, FAR, [50.0, 50, 9, 9]]
    data = scored_images(
        [(found, np.array([0.9, 0.8, 0.5]), [BOX, found[2]]), (found[:2], [0.5, 0.5], [BOX])]
    )
    false_positives, sensitivity = froc_curve(drawn_of(data))
    np.testing.assert_allclose(sensitivity, [[1 / 3, 1]])  # at .9, and at .5 that two hits share
    np.testing.assert_allclose(false_positives, [[0, 1]])
    false_positives, sensitivity = froc_curve(drawn_of(data, np.array([[0, 2], [0, 0]])))
    np.testing.assert_allclose(sensitivity, np.array([[0, 1], [np.nan, np.nan]]))
    np.testing.assert_allclose(false_positives, np.array([[0, 1], [np.nan, np.nan]]))


@pytest.mark.parametrize("grid", [None, 6])
def test_the_curve_holds_the_sensitivities(grid):
    data = random_images(np.random.default_rng(3), 40, grid=grid, ties_within=True, max_boxes=25)
    (false_positives,), (sensitivity,) = froc_curve(drawn_of(data))
    assert (np.diff(false_positives) >= 0).all()
    assert (np.diff(sensitivity) > 0).all()
    for level in FALSE_POSITIVES:
        expected = sensitivity[false_positives <= level].max(initial=0)
        assert froc_sensitivity(drawn_of(data), level)[0] == pytest.approx(expected)
