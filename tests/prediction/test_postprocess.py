from dataclasses import replace

import numpy as np
import pytest

from src.prediction.postprocess import choose_boxes, gate_scores, shrink_boxes, suppress_at
from src.prediction.presets import GATES, Postprocess
from tests import oracles
from tests.made_predictions import ALL, WHOLE, make_predictions, random_predictions


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.3, 0.7, 1.0])
def test_suppress_at_equals_the_plain_nms(threshold):
    predictions = random_predictions(3, n_images=30)
    kept = suppress_at(predictions.candidates(), [0.9, threshold])[1]
    for image in range(len(predictions)):
        rows = predictions.candidates_of(image)
        expected = oracles.nms(predictions.boxes_xyxy[rows], predictions.scores[rows], threshold)
        assert np.flatnonzero(kept[rows]).tolist() == expected


@pytest.mark.parametrize("gate", GATES)
def test_gate_scores_equal_the_formulas(gate):
    predictions = random_predictions(4)
    image = np.repeat(np.arange(len(predictions)), np.diff(predictions.offsets))
    expected = [
        oracles.gate(float(score), predictions.class_probs[i].astype(float), gate)
        for score, i in zip(predictions.scores, image, strict=True)
    ]
    np.testing.assert_allclose(gate_scores(predictions, gate), expected, rtol=1e-14)


def test_shrink_boxes_keeps_the_centre():
    np.testing.assert_array_equal(
        shrink_boxes(np.array([[10.0, 20.0, 80.0, 40.0]]), 0.5), [[30, 30, 40, 20]]
    )


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("nms", [0.05, 0.4])
@pytest.mark.parametrize("shrink", [1.0, 0.875])
def test_choose_boxes_equals_the_plain_loop(gate, nms, shrink):
    predictions = random_predictions(7, n_images=40)
    postprocess = Postprocess(gate=gate, threshold=1.5, nms=nms, shrink=shrink)
    chosen = choose_boxes(predictions, postprocess)
    n_empty = 0
    for image in range(len(predictions)):
        expected = oracles.chosen_boxes(predictions, image, postprocess)
        rows = slice(*chosen.boxes.offsets[image : image + 2])
        assert chosen.rows[rows].tolist() == [row for row, _, _ in expected]
        boxes = np.array([box for _, box, _ in expected]).reshape(-1, 4)
        np.testing.assert_allclose(chosen.boxes.xywh[rows], boxes, rtol=0, atol=1e-9)

        boxes_xyxy, scores = chosen.of_image(image)
        np.testing.assert_allclose(boxes_xyxy[:, :2], boxes[:, :2], rtol=0, atol=1e-9)
        np.testing.assert_allclose(
            boxes_xyxy[:, 2:], boxes[:, :2] + boxes[:, 2:], rtol=0, atol=1e-9
        )
        np.testing.assert_array_equal(scores, predictions.scores[chosen.rows[rows]])
        n_empty += not expected
    assert 0 < n_empty < 35, "images with and without boxes are among them"
    assert len(chosen.rows) < len(predictions.scores)
    assert chosen.boxes.offsets[-1] == len(chosen.rows) == len(chosen.scores)
    assert chosen.postprocess == postprocess


def test_choose_boxes_takes_images_without_any_candidate():
    chosen = choose_boxes(make_predictions(([WHOLE], []), ([], [])), ALL)
    assert chosen.boxes.counts().tolist() == [0, 0]
    for image in (0, 1):
        boxes_xyxy, scores = chosen.of_image(image)
        assert (boxes_xyxy.shape, scores.shape) == ((0, 4), (0,))


def test_choose_boxes_takes_predictions_of_no_images():
    assert len(choose_boxes(make_predictions(), ALL).rows) == 0


def test_a_box_counts_when_its_gate_is_greater_than_the_threshold():
    predictions = make_predictions(([], [(WHOLE, 0.5)]))
    for threshold, n_chosen in ((2.5, 0), (2.4999, 1)):
        chosen = choose_boxes(predictions, replace(ALL, threshold=threshold))
        assert len(chosen.rows) == n_chosen


def test_boxes_are_shrunk_after_the_suppression():
    apart_when_small = [0, 90, 100, 190]  # IoU .05 as it is, none at half the size
    predictions = make_predictions(([], [(WHOLE, 0.9), (apart_when_small, 0.8)]))
    chosen = choose_boxes(predictions, Postprocess(threshold=0.0, nms=0.04, shrink=0.5))
    assert chosen.boxes.xywh.tolist() == [[25, 25, 50, 50]]


def test_threshold_suppression_and_gate_say_which_boxes_count():
    found = [(WHOLE, 0.9), ([0, 0, 100, 80], 0.8), ([150, 150, 180, 180], 0.5)]
    predictions = make_predictions(([WHOLE], found), ([], [(WHOLE, 0.7)]))
    rows = {
        (threshold, nms): choose_boxes(
            predictions, Postprocess(threshold=threshold, nms=nms)
        ).rows.tolist()
        for threshold, nms in ((0.0, 1.0), (0.0, 0.05), (2.5, 0.05), (3.5, 1.0))
    }
    assert rows == {
        (0.0, 1.0): [0, 1, 2, 3],
        (0.0, 0.05): [0, 2, 3],
        (2.5, 0.05): [0, 3],  # .5 x 5 is not over 2.5
        (3.5, 1.0): [0, 1],
    }
    by_category = Postprocess(threshold=3.6, nms=1.0, gate="score_category")  # score x .52 x 10
    assert choose_boxes(predictions, by_category).rows.tolist() == [0, 1, 3]
