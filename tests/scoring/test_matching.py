"""Found boxes held against the true ones: findings at one setting, precision and recall."""

import math
from dataclasses import replace

import numpy as np
import pytest

from src.metric import iou, match_boxes
from src.prediction.presets import Postprocess
from src.scoring.matching import (
    HIT_IOU,
    Matches,
    find_boxes,
    load_labelled,
    match_predictions,
    precision_recall,
)
from src.scoring.sweep import ScoresError
from tests import oracles
from tests.made_predictions import ALL, WHOLE, make_predictions, random_predictions, save_epoch

LEVELS = np.array([0.0, 0.2, 0.5, 0.8, 1.0])


def test_a_box_hits_from_an_iou_of_two_fifths():
    predictions = make_predictions(
        ([WHOLE], [([0, 0, 100, 40], 0.9)]), ([WHOLE], [([0, 0, 100, 39], 0.9)])
    )
    findings = find_boxes(predictions, ALL)
    assert findings.matches.tolist() == [0, -1]
    assert findings.missed.tolist() == [1]


def test_each_found_box_takes_the_first_true_box_that_is_free():
    true = [WHOLE, [0, 0, 100, 90]]
    found = [([0, 0, 100, h], 0.9 - i / 10) for i, h in enumerate((90, 100, 95))]
    findings = find_boxes(make_predictions(([WHOLE], []), (true, found)), ALL)
    assert findings.matches.tolist() == [1, 2, -1]
    assert findings.hit_overlaps(np.array([0, 1])).tolist() == [0.9, 0.9]


def test_matches_agree_with_a_plain_loop_and_with_the_metric():
    predictions = random_predictions(n_images=60)
    findings = find_boxes(predictions, ALL)
    expected = []
    for image in range(60):
        free = list(range(*findings.true.offsets[image : image + 2]))
        for row in range(*findings.boxes.offsets[image : image + 2]):
            close = [t for t in free if iou(findings.boxes.xywh[row], findings.true.xywh[t]) >= 0.4]
            expected.append(close[0] if close else -1)
            free = [t for t in free if t not in close[:1]]
    assert findings.matches.tolist() == expected
    hits = match_boxes(findings.boxes, findings.true, (HIT_IOU,))[:, 0]
    assert findings.matches.tolist() == hits.tolist()
    assert len(set(expected)) > 20


def test_shrunk_boxes_are_matched_and_shown():
    predictions = make_predictions(([WHOLE], [(WHOLE, 0.9)]))
    findings = find_boxes(predictions, Postprocess(threshold=0.0, nms=1.0, shrink=0.5))
    assert findings.boxes.xywh.tolist() == [[25, 25, 50, 50]]
    assert findings.matches.tolist() == [-1]


def test_images_are_scored_by_the_metric():
    half = ([WHOLE], [([0, 0, 100, 50], 0.9)])
    findings = find_boxes(make_predictions(half, ([], []), ([WHOLE], [])), ALL)
    np.testing.assert_array_equal(findings.image_scores, [3 / 8, np.nan, 0])  # .40, .45 and .50


def test_without_truth_nothing_is_right_or_wrong():
    predictions = make_predictions(([WHOLE], [(WHOLE, 0.9)]))
    predictions.true_categories[:] = -1
    with pytest.raises(ScoresError, match="no true boxes"):
        find_boxes(predictions, ALL)


def test_findings_hold_the_chosen_boxes_of_every_image():
    predictions = random_predictions(2, n_images=20)
    postprocess = Postprocess(threshold=1.0, nms=0.3, shrink=0.9)
    findings = find_boxes(predictions, postprocess)
    chosen = [oracles.chosen_boxes(predictions, image, postprocess) for image in range(20)]
    assert findings.chosen.rows.tolist() == [row for own in chosen for row, _, _ in own]
    assert findings.boxes.counts().tolist() == [len(own) for own in chosen]
    assert findings.postprocess == postprocess


def plain_precision_recall(predictions, nms, level):
    """Hits of each image from its precision TP / (TP + FP + FN), by the plain loops."""
    n_hits, n_found = 0.0, 0
    for image in range(len(predictions)):
        rows = predictions.candidates_of(image)
        boxes, scores = predictions.boxes_xyxy[rows].astype(float), predictions.scores[rows]
        kept = [k for k in oracles.nms(boxes, scores, nms) if scores[k] > level]
        true = oracles.xywh(predictions.true_boxes_xyxy[predictions.truth_of(image)])
        found = oracles.xywh(boxes[kept])
        share = oracles.map_iou(true, found, scores[kept], thresholds=(0.5,)) or 0.0
        n_found += len(found)
        n_hits += share * (len(found) + len(true)) / (1 + share)
    n_true = len(predictions.true_boxes_xyxy)
    return n_hits / n_found if n_found else math.nan, n_hits / n_true


@pytest.mark.parametrize("nms", [0.05, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_precision_and_recall_equal_the_plain_loops(seed, nms):
    predictions = random_predictions(seed, n_images=30)
    fast = precision_recall(match_predictions(predictions, nms=nms), LEVELS)
    slow = [plain_precision_recall(predictions, nms, level) for level in LEVELS]
    np.testing.assert_allclose(np.transpose(fast), slow, rtol=0, atol=1e-9)
    assert len(np.unique(fast)) > 6, "the levels must matter for this to say anything"


def test_precision_and_recall_of_a_case_by_hand():
    one, two = [0, 0, 20, 20], [50, 50, 70, 70]
    first = ([one, two], [(one, 0.9), ([80, 0, 90, 10], 0.5)])
    matches = match_predictions(make_predictions(first, ([], [(one, 0.6)])), nms=0.5)
    precision, recall = precision_recall(matches, np.array([0.1, 0.5, 0.7, 0.95]))
    np.testing.assert_allclose(precision, [1 / 3, 1 / 2, 1, np.nan])
    np.testing.assert_allclose(recall, [1 / 2, 1 / 2, 1 / 2, 0])


def test_recall_without_true_boxes_does_not_exist():
    matches = match_predictions(make_predictions(([], [([0, 0, 9, 9], 0.9)])), nms=0.5)
    precision, recall = precision_recall(matches, np.array([0.5]))
    assert precision == [0]
    assert np.isnan(recall).all()


def test_side_ratios_compare_a_hit_with_the_box_that_the_metric_gives_it():
    # In the second image both true boxes overlap the found one by more than one half, the later
    # one by more; the metric takes the first that is free.
    first = ([[10, 10, 30, 50]], [([8, 10, 32, 48], 0.9), ([60, 60, 90, 90], 0.8)])
    second = ([[0, 0, 40, 40], [0, 0, 50, 40]], [([0, 0, 50, 44], 0.7)])
    matches = match_predictions(make_predictions(first, second), nms=0.5)
    np.testing.assert_array_equal(matches.true_rows, [0, -1, 1])
    np.testing.assert_allclose(matches.side_ratios(), [[24 / 20, 38 / 40], [50 / 40, 44 / 40]])


def test_matches_are_fractions_of_the_network_input():
    image = ([[10, 20, 30, 60]], [([10, 20, 30, 58], 0.9)])
    matches = match_predictions(make_predictions(image, img_size=200), nms=0.5)
    np.testing.assert_allclose(matches.true_boxes, [[0.05, 0.1, 0.1, 0.2]])
    np.testing.assert_allclose(matches.boxes, [[0.05, 0.1, 0.1, 0.19]])


def test_matches_above_a_score_keep_their_hits():
    boxes = np.arange(12.0).reshape(3, 4)
    matches = Matches(boxes, np.array([0.9, 0.5, 0.2]), np.array([1, -1, 0]), boxes[:2])
    above = matches.above(0.2)
    np.testing.assert_array_equal(above.boxes, boxes[:2])
    np.testing.assert_array_equal(above.scores, [0.9, 0.5])
    np.testing.assert_array_equal(above.true_rows, [1, -1])
    np.testing.assert_array_equal(above.true_boxes, matches.true_boxes)


def test_predictions_without_truth_are_refused(tmp_path):
    save_epoch(tmp_path, random_predictions())
    assert len(load_labelled(tmp_path, 0)) == 8
    unknown = replace(random_predictions(epoch=3), true_categories=np.full(8, -1))
    for nothing in (unknown, make_predictions(epoch=3)):
        save_epoch(tmp_path, nothing)
        with pytest.raises(ScoresError, match="epoch 3 holds no truth") as caught:
            load_labelled(tmp_path, 3)
        assert str(tmp_path) in str(caught.value)
