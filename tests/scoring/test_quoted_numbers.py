import math
from dataclasses import replace

import numpy as np
import pytest

from src.scoring.average_precision import average_precision
from src.scoring.bootstrap import draw_patients, percentile_interval
from src.scoring.image_level import DrawnImages
from src.scoring.quoted_numbers import (
    BOX_NUMBERS,
    DRAWS_AT_ONCE,
    IMAGE_NUMBERS,
    NUMBERS,
    compute_numbers,
    count_cases,
)
from src.scoring.ranked_boxes import DrawnBoxes, rank_boxes
from tests.made_scored_images import chosen_images, ones, random_images, scored_images

BOX, FAR = [0.0, 0, 10, 10], [500.0, 500, 10, 10]
N_IMAGES = 50
UNDEFINED_WITHOUT_OPACITY = {number.name for number in NUMBERS} - {"froc_reached", "ece"}


@pytest.fixture(scope="module")
def data():
    """Images that share scores; within an image they differ, see the docstring of AP."""
    return random_images(np.random.default_rng(11), N_IMAGES, grid=30, max_boxes=20)


@pytest.mark.parametrize("number", BOX_NUMBERS, ids=lambda number: number.name)
def test_a_weight_is_how_often_an_image_is_there(data, number):
    weights = np.random.default_rng(1).integers(0, 4, (5, N_IMAGES))
    values = number.compute(DrawnBoxes(rank_boxes(data), weights))
    drawn = [chosen_images(data, np.repeat(np.arange(N_IMAGES), row)) for row in weights]
    expected = [number.compute(DrawnBoxes(rank_boxes(each), ones(each)))[0] for each in drawn]
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert np.ptp(values) > 0


@pytest.mark.parametrize("number", IMAGE_NUMBERS, ids=lambda number: number.name)
def test_a_weight_is_how_often_an_image_is_called(data, number):
    weights = np.random.default_rng(2).integers(0, 4, (5, N_IMAGES))
    scores, truth = data.image_scores["head"], data.has_opacity
    values = number.compute(DrawnImages(scores, truth, weights))
    expected = [
        number.compute(DrawnImages(np.repeat(scores, row), np.repeat(truth, row),
                                   np.ones((1, row.sum()), dtype=np.int64)))[0]
        for row in weights
    ]  # fmt: skip
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert np.ptp(values) > 0


def test_every_number_has_a_name_of_its_own_and_is_computed_once(data):
    results = compute_numbers(data, n_draws=3)
    names = [(result.name, result.image_score) for result in results]
    assert len({number.name for number in NUMBERS}) == len(NUMBERS)
    assert names == [
        *((number.name, "") for number in BOX_NUMBERS),
        *((number.name, score) for score in ("head", "best_box") for number in IMAGE_NUMBERS),
    ]


def test_a_result_is_the_number_with_the_interval_of_its_draws(data):
    n_draws = DRAWS_AT_ONCE + 7
    results = {(r.name, r.image_score): r for r in compute_numbers(data, n_draws=n_draws)}
    ranked, draws = rank_boxes(data), draw_patients(data.patients, n_draws)
    value = average_precision(DrawnBoxes(ranked, ones(data)), 0.5)[0]
    interval = percentile_interval(average_precision(DrawnBoxes(ranked, draws), 0.5))
    assert results["ap_50", ""][2:5] == pytest.approx((value, *interval))
    for result in results.values():
        assert result.low <= result.value + 0.1
        assert result.value <= result.high + 0.1
        assert result.low < result.high
    auroc = {score: results["auroc", score].value for score in data.image_scores}
    assert auroc["head"] != auroc["best_box"]


def test_perfect_boxes_score_one(data):
    found = replace(data, predicted=data.true, scores=np.ones(len(data.true.xywh)))
    found = replace(found, image_scores={"truth": data.has_opacity.astype(float)})
    expected = {"froc_reached": 0.0, "ece": 0.0}
    for result in compute_numbers(found, n_draws=10):
        assert result[2:5] == pytest.approx((expected.get(result.name, 1.0),) * 3)


def test_without_draws_only_the_interval_is_undefined(data):
    for result in compute_numbers(data, n_draws=0):
        assert math.isfinite(result.value)
        assert math.isnan(result.low)
        assert math.isnan(result.high)


@pytest.mark.filterwarnings("error")
def test_without_true_boxes_only_false_positives_and_calibration_are_defined():
    data = scored_images(
        [([BOX, FAR], np.array([0.9, 0.8]), []), ([], np.zeros(0), [])], head=[0.3, 0.1]
    )
    results = compute_numbers(data, n_draws=20)
    undefined = {result.name for result in results if math.isnan(result.value)}
    assert undefined == UNDEFINED_WITHOUT_OPACITY
    assert {result.name for result in results if math.isnan(result.low)} == undefined


@pytest.mark.filterwarnings("error")
def test_without_found_boxes_every_number_of_boxes_is_zero():
    data = scored_images([([], np.zeros(0), [BOX]), ([], np.zeros(0), [BOX])], head=[0.3, 0.1])
    results = compute_numbers(data, n_draws=20)
    assert all(result[2:5] == (0, 0, 0) for result in results if not result.image_score)


def test_cases_are_counted():
    data = scored_images(
        [([BOX], np.array([0.5]), [BOX, FAR]), ([FAR], np.array([0.5]), []), ([], [], [])],
        patients=[4, 4, 2],
    )
    assert count_cases(data) == {
        "images": 3,
        "images with an opacity": 1,
        "patients": 2,
        "true boxes": 2,
        "predicted boxes": 2,
    }
