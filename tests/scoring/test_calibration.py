import numpy as np
import pytest

from src.scoring.calibration import class_reliabilities, count_confusions, reliability


def test_confusions_have_a_row_for_each_true_class():
    probs = np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2], [0, 0, 1]])
    counts = count_confusions(np.array([0, 0, 1, 2]), probs)
    np.testing.assert_array_equal(counts, [[1, 0, 1], [1, 0, 0], [0, 0, 1]])


def test_reliability_of_a_case_by_hand():
    probs, came_true = np.array([0.1, 0.3, 0.5, 0.9, 1.0]), np.array([0, 1, 0, 1, 1]) > 0
    curve = reliability(probs, came_true, 4)
    np.testing.assert_allclose(curve.probs, [0.1, 0.3, 0.5, 0.95])
    np.testing.assert_allclose(curve.shares, [0, 1, 0, 1])
    np.testing.assert_array_equal(curve.counts, [1, 1, 1, 2])
    assert curve.error == pytest.approx((0.1 + 0.7 + 0.5 + 2 * 0.05) / 5)


def test_reliability_passes_over_empty_bins():
    curve = reliability(np.array([0.9, 0.7]), np.array([True, False]), 2)
    np.testing.assert_array_equal(curve.counts, [0, 2])
    assert np.isnan([curve.probs[0], curve.shares[0]]).all()
    assert curve.error == pytest.approx(0.3)


def test_true_probabilities_have_almost_no_calibration_error():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([1, 1, 1], 20000)
    categories = (rng.random((20000, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    of_classes, top = class_reliabilities(categories, probs)
    assert max(curve.error for curve in (*of_classes, top)) < 0.015
    swapped, top = class_reliabilities(categories, probs[:, [1, 0, 2]])
    assert min(swapped[0].error, swapped[1].error, top.error) > 0.1
    assert swapped[2].error == of_classes[2].error


def test_the_calibration_error_of_an_image_is_that_of_its_most_probable_class():
    probs = np.array([[0.6, 0.3, 0.1], [0.15, 0.05, 0.8]])
    of_classes, top = class_reliabilities(np.array([0, 0]), probs)
    assert top.error == pytest.approx((0.4 + 0.8) / 2)
    assert [curve.error for curve in of_classes] == pytest.approx([0.625, 0.175, 0.45])
