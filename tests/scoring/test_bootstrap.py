import numpy as np
import pytest

from src.scoring.bootstrap import draw_patients, percentile_interval, ratio, widen_draws
from src.scoring.image_level import DrawnImages, auroc


def test_a_draw_has_as_many_patients_as_there_are_with_all_their_images():
    patients = np.array([7, 3, 7, 9, 3, 7])
    weights = draw_patients(patients, 200)
    assert weights.shape == (200, 6)
    np.testing.assert_array_equal(weights[:, [0, 1]], weights[:, [2, 4]])
    np.testing.assert_array_equal(weights[:, 0], weights[:, 5])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert set(weights[:, 0]) == {0, 1, 2, 3}


def test_draws_are_the_same_every_time_and_differ_among_themselves():
    weights = draw_patients(np.arange(50), 20)
    np.testing.assert_array_equal(weights, draw_patients(np.arange(50), 20))
    np.testing.assert_array_equal(weights[:5], draw_patients(np.arange(50), 5))
    assert len(np.unique(weights, axis=0)) == 20
    assert (weights != draw_patients(np.arange(50), 20, seed=1)).any()


def test_an_image_is_drawn_as_often_as_a_binomial_says():
    weights = draw_patients(np.arange(100), 5000)
    assert weights.mean() == 1
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.06)
    assert weights.var() == pytest.approx(0.99, abs=0.02)


def test_no_images_give_draws_without_images():
    assert draw_patients(np.zeros(0, dtype=np.int64), 3).shape == (3, 0)


def test_an_interval_leaves_out_draws_without_a_value():
    values = np.concatenate([np.arange(1001) / 1000, [np.nan] * 500])
    assert percentile_interval(values) == pytest.approx((0.025, 0.975))
    assert percentile_interval(values, share=0.5) == pytest.approx((0.25, 0.75))


def test_an_interval_of_undefined_values_is_undefined():
    assert np.isnan(percentile_interval(np.array([np.nan, np.nan]))).all()
    assert np.isnan(percentile_interval(np.zeros(0))).all()


@pytest.mark.parametrize(
    ("n_patients", "t"), [(10, 2.2622), (20, 2.0930), (40, 2.0227), (1000, 1.9623)]
)
def test_draws_are_widened_to_students_quantile_and_the_variance_over_n_less_1(n_patients, t):
    draws = np.array([0.3, -0.1, 0.1, np.nan])
    factor = t / 1.959964 * np.sqrt(n_patients / (n_patients - 1))
    expected = [0.1 + 0.2 * factor, 0.1 - 0.2 * factor, 0.1, np.nan]
    np.testing.assert_allclose(widen_draws(draws, 0.1, n_patients), expected, atol=1e-3)


def test_draws_of_one_patient_stay():
    assert widen_draws(np.zeros(3), 0.0, 1).tolist() == [0, 0, 0]


def test_widened_draws_of_a_mean_of_ten_find_a_difference_as_often_as_they_say():
    rng, n_found, n_trials = np.random.default_rng(2), np.zeros(2), 2000
    weights = draw_patients(np.arange(10), 999) / 10
    for _ in range(n_trials):
        values = rng.normal(size=10)
        draws = weights @ values
        for i, each in enumerate((draws, widen_draws(draws, values.mean(), 10))):
            low, high = percentile_interval(each)
            n_found[i] += not low <= 0 <= high
    plain, widened = n_found / n_trials
    assert plain > 0.08
    assert widened == pytest.approx(0.05, abs=0.015)


def test_a_share_of_nothing_is_undefined():
    np.testing.assert_array_equal(ratio(np.array([1, 0]), np.array([2, 0])), [0.5, np.nan])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, n_held, n_trials = np.random.default_rng(0), 0, 200
    for _ in range(n_trials):
        truth = rng.random(200) < 0.4
        scores = rng.normal(size=200) + truth  # AUROC: Phi(1 / sqrt(2))
        drawn = DrawnImages(scores, truth, draw_patients(np.arange(200), 200))
        low, high = percentile_interval(auroc(drawn))
        n_held += low <= 0.760250 <= high
    assert 0.90 <= n_held / n_trials <= 0.985


def test_images_of_one_patient_that_are_alike_do_not_make_an_interval_narrower():
    rng = np.random.default_rng(1)
    truth = rng.random(300) < 0.4
    scores = rng.normal(size=300) + truth
    width = {}
    for name, copies, patients in (
        ("single", 1, np.arange(300)),
        ("of patients", 4, np.tile(np.arange(300), 4)),
        ("of images", 4, np.arange(1200)),
    ):
        weights = draw_patients(patients, 1000)
        drawn = DrawnImages(np.tile(scores, copies), np.tile(truth, copies), weights)
        low, high = percentile_interval(auroc(drawn))
        width[name] = high - low
    assert width["of patients"] == pytest.approx(width["single"])
    assert width["of images"] == pytest.approx(width["single"] / 2, rel=0.15)
