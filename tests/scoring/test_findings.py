import numpy as np
import pytest

from src.metric import iou, match_boxes
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess
from src.scoring.matching import HIT_IOU, find_boxes
from src.scoring.sweep import ScoresError
from tests.prediction.test_predictions import offsets_of, random_predictions

ALL = Postprocess(threshold=0.0, nms=1.0)
WHOLE = [0, 0, 100, 100]


def make_predictions(*images, probs=None, ids=None):
    """Build predictions from (true boxes, [(found box, score), ...]), all boxes xyxy; 192 px."""
    n = len(images)
    true = [box for boxes, _ in images for box in boxes]
    found = [pair for _, pairs in images for pair in pairs]
    return Predictions(
        ids=np.array(ids or [f"image-{i}" for i in range(n)]),
        image_sizes=np.full((n, 2), 1024),
        class_probs=np.array(probs or [[0.2, 0.3, 0.5]] * n, np.float32),
        offsets=offsets_of([len(pairs) for _, pairs in images]),
        boxes_xyxy=np.array([box for box, _ in found], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score in found], np.float32),
        true_offsets=offsets_of([len(boxes) for boxes, _ in images]),
        true_boxes_xyxy=np.array(true, np.float32).reshape(-1, 4),
        true_categories=np.array([2 if boxes else 1 for boxes, _ in images]),
        header={"img_size": 192, "model": "demo", "fold": 0, "tag": "", "epoch": 0},
    )


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
    assert (findings.matches >= 0).tolist() == hits.tolist()
    assert len(set(expected)) > 20


def test_a_setting_lets_through_what_the_sweep_counts():
    found = [(WHOLE, 0.9), ([0, 0, 100, 80], 0.8), ([150, 150, 180, 180], 0.5)]
    predictions = make_predictions(([WHOLE], found), ([], [(WHOLE, 0.7)]))
    rows = {
        (threshold, nms): find_boxes(
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
    assert find_boxes(predictions, by_category).rows.tolist() == [0, 1, 3]


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
