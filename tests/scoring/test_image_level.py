from functools import partial

import numpy as np
import pytest

from src.scoring.calibration import reliability
from src.scoring.image_level import (
    DrawnImages,
    auroc,
    calibration_error,
    image_average_precision,
    roc_curve,
    sensitivity_at_specificity,
)


def sklearn_sensitivity(truth, scores, specificity):
    metrics = pytest.importorskip("sklearn.metrics")
    false_rate, true_rate, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    n_negative = (~truth).sum()
    n_right = np.round((1 - false_rate) * n_negative)
    return true_rate[n_right / n_negative >= specificity].max()


def random_case(rng, n_images, *, ties):
    truth = rng.random(n_images) < 0.3
    scores = (rng.normal(0.4, 0.2, n_images) + 0.2 * truth).clip(0, 1)
    return np.round(scores, 1) if ties else scores, truth


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_images", [20, 300])
def test_numbers_of_images_are_those_of_scikit_learn(n_images, ties):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(n_images)
    scores, truth = random_case(rng, n_images, ties=ties)
    weights = np.vstack([np.ones((1, n_images), dtype=int), rng.integers(0, 4, (5, n_images))])
    drawn = DrawnImages(scores, truth, weights)
    repeated = [(np.repeat(truth, w), np.repeat(scores, w)) for w in weights]
    for ours, theirs in (
        (auroc(drawn), metrics.roc_auc_score),
        (image_average_precision(drawn), metrics.average_precision_score),
        (sensitivity_at_specificity(drawn, 0.9), partial(sklearn_sensitivity, specificity=0.9)),
        (sensitivity_at_specificity(drawn, 0.95), partial(sklearn_sensitivity, specificity=0.95)),
        (calibration_error(drawn), lambda truth, scores: reliability(scores, truth).error),
    ):
        expected = [theirs(*case) for case in repeated]
        np.testing.assert_allclose(ours, expected, atol=1e-12)
        assert np.ptp(expected) > 0.01, "the weights must matter"


def test_numbers_of_a_case_by_hand():
    scores = np.array([0.9, 0.8, 0.8, 0.3])
    drawn = DrawnImages(scores, np.array([True, True, False, False]), np.ones((1, 4), dtype=int))
    assert auroc(drawn)[0] == pytest.approx((2 + 1.5) / 4)
    assert image_average_precision(drawn)[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert sensitivity_at_specificity(drawn, 0.9)[0] == 0.5
    assert sensitivity_at_specificity(drawn, 0.5)[0] == 1.0
    assert calibration_error(drawn)[0] == pytest.approx((0.1 + abs(1.6 - 1) + 0.3) / 4)


def test_exactly_the_specificity_is_enough():
    scores = np.concatenate([[0.5], [0.6], np.full(9, 0.1)])  # 9 of 10 negatives lie below .5
    drawn = DrawnImages(scores, np.arange(11) == 0, np.ones((1, 11), dtype=int))
    assert sensitivity_at_specificity(drawn, 0.9)[0] == 1
    assert sensitivity_at_specificity(drawn, 0.95)[0] == 0


def test_numbers_are_undefined_where_a_draw_lacks_positives_or_negatives():
    scores, truth = np.array([0.9, 0.4, 0.2]), np.array([True, False, False])
    drawn = DrawnImages(scores, truth, np.array([[3, 0, 0], [0, 1, 2], [1, 1, 1]]))
    for values in (
        auroc(drawn),
        image_average_precision(drawn),
        sensitivity_at_specificity(drawn, 0.9),
    ):
        assert np.isnan(values).tolist() == [True, True, False]
    assert calibration_error(drawn) == pytest.approx([0.1, 0.8 / 3, 0.7 / 3])


def test_numbers_of_no_images_are_undefined():
    drawn = DrawnImages(np.zeros(0), np.zeros(0, dtype=bool), np.zeros((1, 0), dtype=int))
    for compute in (auroc, image_average_precision, calibration_error):
        assert np.isnan(compute(drawn)).tolist() == [True]


@pytest.mark.parametrize("ties", [False, True])
def test_the_roc_curve_is_that_of_scikit_learn(ties):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(7)
    scores, truth = random_case(rng, 60, ties=ties)
    weights = np.vstack([np.ones((1, 60), dtype=int), rng.integers(1, 4, (2, 60))])
    drawn = DrawnImages(scores, truth, weights)
    false_rate, sensitivity = roc_curve(drawn)
    for row, w in enumerate(weights):
        case = np.repeat(truth, w), np.repeat(scores, w)
        expected = metrics.roc_curve(*case, drop_intermediate=False)[:2]
        np.testing.assert_allclose((false_rate[row], sensitivity[row]), expected, atol=1e-12)
    np.testing.assert_allclose(np.trapezoid(sensitivity, false_rate), auroc(drawn))


def test_the_roc_curve_of_one_class_is_undefined():
    false_rate, sensitivity = roc_curve(
        DrawnImages(np.array([0.3, 0.6]), np.array([True, True]), np.ones((1, 2), dtype=int))
    )
    assert np.isnan(false_rate).all()
    assert sensitivity.tolist() == [[0, 0.5, 1]]
