import math
from dataclasses import replace

import numpy as np
import pytest

from src.prediction.predictions import Predictions
from src.scoring.matching import (
    Matches,
    choose_setting,
    class_reliabilities,
    count_confusions,
    load_labelled,
    match_predictions,
    precision_recall,
    reliability,
)
from src.scoring.sweep import Grid, ScoresError, sweep_run
from tests import oracles
from tests.prediction.test_predictions import offsets_of, random_predictions

LEVELS = np.array([0.0, 0.2, 0.5, 0.8, 1.0])


def xywh(boxes_xyxy):
    return [(x, y, x2 - x, y2 - y) for x, y, x2, y2 in boxes_xyxy.astype(float)]


def predictions_of(*images, img_size=100):
    """Lay out images, each given as (true boxes, found boxes, scores), boxes xyxy."""
    true, found, scores = zip(*images, strict=True)
    return Predictions(
        ids=np.array([f"patient-{i}" for i in range(len(images))]),
        image_sizes=np.full((len(images), 2), 1024),
        class_probs=np.full((len(images), 3), 1 / 3, np.float32),
        offsets=offsets_of([len(boxes) for boxes in found]),
        boxes_xyxy=np.array([box for boxes in found for box in boxes], np.float32).reshape(-1, 4),
        scores=np.concatenate(scores).astype(np.float32),
        true_offsets=offsets_of([len(boxes) for boxes in true]),
        true_boxes_xyxy=np.array([b for boxes in true for b in boxes], np.float32).reshape(-1, 4),
        true_categories=np.array([2 if boxes else 1 for boxes in true]),
        header={"img_size": img_size, "model": "demo", "fold": 0, "tag": "", "epoch": 0},
    )


def plain_precision_recall(predictions, nms, level):
    """Hits of each image from its precision TP / (TP + FP + FN), by the plain loops."""
    n_hits, n_found = 0.0, 0
    for image in range(len(predictions)):
        rows = predictions.candidates_of(image)
        boxes, scores = predictions.boxes_xyxy[rows].astype(float), predictions.scores[rows]
        kept = [k for k in oracles.nms(boxes, scores, nms) if scores[k] > level]
        true = xywh(predictions.true_boxes_xyxy[predictions.truth_of(image)])
        found = xywh(boxes[kept]) if kept else []
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
    first = ([one, two], [one, [80, 0, 90, 10]], [0.9, 0.5])
    matches = match_predictions(predictions_of(first, ([], [one], [0.6])), nms=0.5)
    precision, recall = precision_recall(matches, np.array([0.1, 0.5, 0.7, 0.95]))
    np.testing.assert_allclose(precision, [1 / 3, 1 / 2, 1, np.nan])
    np.testing.assert_allclose(recall, [1 / 2, 1 / 2, 1 / 2, 0])


def test_recall_without_true_boxes_does_not_exist():
    matches = match_predictions(predictions_of(([], [[0, 0, 9, 9]], [0.9])), nms=0.5)
    precision, recall = precision_recall(matches, np.array([0.5]))
    assert precision == [0]
    assert np.isnan(recall).all()


def test_side_ratios_compare_a_hit_with_the_box_that_it_overlaps_most():
    # In the second image both true boxes overlap the found one by more than one half.
    first = ([[10, 10, 30, 50]], [[8, 10, 32, 48], [60, 60, 90, 90]], [0.9, 0.8])
    second = ([[0, 0, 40, 40], [0, 0, 50, 40]], [[0, 0, 50, 44]], [0.7])
    matches = match_predictions(predictions_of(first, second), nms=0.5)
    np.testing.assert_array_equal(matches.true_rows, [0, -1, 2])
    np.testing.assert_allclose(matches.side_ratios(), [[24 / 20, 38 / 40], [1, 44 / 40]])


def test_matches_are_fractions_of_the_network_input():
    predictions = predictions_of(([[10, 20, 30, 60]], [[10, 20, 30, 58]], [0.9]), img_size=200)
    matches = match_predictions(predictions, nms=0.5)
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


@pytest.fixture
def run_dir(tmp_path):
    """A run with epochs 0 to 2, of which epochs 0 and 1 are scored; epoch 0 is the best."""
    run_dir = tmp_path / "demo_fold_0"
    for epoch in range(3):
        predictions = random_predictions(1, epoch=epoch)
        if epoch == 1:
            predictions = replace(predictions, boxes_xyxy=predictions.boxes_xyxy / 2)
        predictions.save(run_dir / "predictions" / f"{epoch:03}.npz")
    sweep_run(run_dir, [0, 1], Grid(thresholds=(0.1, 2.0, 4.9))).save(run_dir / "scores.npz")
    return run_dir


def test_the_best_epoch_and_threshold_are_chosen(run_dir):
    sweep = sweep_run(run_dir, [0, 1], Grid(thresholds=(0.1, 2.0, 4.9)))
    assert choose_setting(run_dir) == (0, sweep.best()["threshold"])
    assert sweep.best(1)["score"] == 0
    assert choose_setting(run_dir, 1) == (1, 0.3)


def test_without_scores_the_last_epoch_and_the_default_threshold_are_chosen(run_dir):
    assert choose_setting(run_dir, 2) == (2, 0.3)
    (run_dir / "scores.npz").unlink()
    assert choose_setting(run_dir) == (2, 0.3)


def test_a_threshold_of_another_gate_is_not_taken(run_dir):
    sweep_run(run_dir, [0], Grid(gates=("score_category",))).save(run_dir / "scores.npz")
    assert choose_setting(run_dir) == (0, 0.3)


def test_predictions_without_truth_are_refused(run_dir):
    assert len(load_labelled(run_dir, 0)) == 8
    predictions = random_predictions(epoch=3)
    unknown = replace(predictions, true_categories=np.full(len(predictions), -1))
    unknown.save(run_dir / "predictions" / "003.npz")
    with pytest.raises(ScoresError, match=r"demo_fold_0: epoch 3 holds no truth"):
        load_labelled(run_dir, 3)
