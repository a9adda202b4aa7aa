import contextlib
import io

import numpy as np
import pytest

from src.scoring.average_precision import (
    average_precision,
    mean_average_precision,
    precision_at_recall,
)
from src.scoring.ranked_boxes import IOUS, DrawnBoxes, rank_boxes
from tests.made_scored_images import chosen_images, ones, random_images, scored_images

BOX, FAR = [0.0, 0, 10, 10], [500.0, 500, 10, 10]


def coco_average_precision(data):
    """faster-coco-eval's average precision at each of `IOUS`, (T,)."""
    library = pytest.importorskip("faster_coco_eval")
    truth = {
        "info": {},
        "images": [{"id": i + 1, "width": 1024, "height": 1024} for i in range(len(data.ids))],
        "categories": [{"id": 1, "name": "opacity"}],
        "annotations": [
            {"id": k + 1, "image_id": int(image) + 1, "category_id": 1, "bbox": box.tolist(),
             "area": float(box[2] * box[3]), "iscrowd": 0}
            for k, (image, box) in enumerate(zip(data.true.images(), data.true.xywh, strict=True))
        ],
    }  # fmt: skip
    detections = [
        {"image_id": int(image) + 1, "category_id": 1, "bbox": box.tolist(), "score": float(score)}
        for image, box, score in zip(
            data.predicted.images(), data.predicted.xywh, data.scores, strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = library.COCO(truth)
        evaluation = library.COCOeval_faster(coco, coco.loadRes(detections), "bbox")
        evaluation.params.iouThrs = np.array(IOUS)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, -1].mean(axis=1)


def all_precisions(data, weights):
    """Ours at each of `IOUS`, (T, D)."""
    drawn = DrawnBoxes(rank_boxes(data), weights)
    return np.array([average_precision(drawn, iou) for iou in IOUS])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {"n_images": 60},
        {"n_images": 200, "grid": 8, "ties_within": True},
        {"n_images": 30, "grid": 300, "max_boxes": 250},
        {"n_images": 12, "grid": 2, "ties_within": True, "max_boxes": 4},
    ],
    ids=["different scores", "ties", "more than 100 boxes", "few"],
)
def test_average_precision_is_that_of_faster_coco_eval(options, seed):
    data = random_images(np.random.default_rng(seed), **options)
    assert (data.predicted.counts() == 0).any()
    assert not data.has_opacity.all()
    expected = coco_average_precision(data)
    np.testing.assert_allclose(all_precisions(data, ones(data))[:, 0], expected, atol=1e-6)
    drawn = DrawnBoxes(rank_boxes(data), ones(data))
    assert mean_average_precision(drawn)[0] == pytest.approx(expected[1:].mean(), abs=1e-6)
    assert expected[0] > expected[-1]


@pytest.mark.parametrize("grid", [None, 40])
def test_a_weight_is_how_often_faster_coco_eval_sees_the_image(grid):
    rng = np.random.default_rng(5)
    data = random_images(rng, 50, grid=grid)
    weights = rng.integers(0, 4, (6, 50))
    expected = [coco_average_precision(chosen_images(data, np.repeat(np.arange(50), w)))
                for w in weights]  # fmt: skip
    np.testing.assert_allclose(all_precisions(data, weights).T, expected, atol=1e-6)
    assert np.ptp(np.array(expected)[:, 0]) > 0.01, "the weights must matter"


def test_average_precision_of_a_case_by_hand():
    data = scored_images(
        [([BOX, FAR], np.array([0.9, 0.8]), [BOX]), ([BOX], np.array([0.7]), [BOX])]
    )
    # Precision 1 at the 51 levels to recall .5, then 2 of 3 boxes.
    assert all_precisions(data, ones(data))[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)
    weights = np.array([[1, 0], [0, 1], [3, 1], [0, 0]])
    expected = [1, 1, (76 + 25 * 4 / 7) / 101, np.nan]
    np.testing.assert_allclose(all_precisions(data, weights)[0], expected)


def test_precision_is_that_of_the_best_higher_recall():
    data = scored_images([([FAR, BOX], np.array([0.9, 0.8]), [BOX])])
    assert all_precisions(data, ones(data))[0, 0] == pytest.approx(0.5)


def test_hits_of_a_hundred_reach_the_levels_that_coco_says():
    for n_hits in (7, 14, 28, 35, 41, 69):  # rounding decides: the first three reach theirs
        found = [[BOX]] * n_hits + [[FAR]] * (100 - n_hits)
        data = scored_images([(boxes, np.array([0.5]), [BOX]) for boxes in found])
        expected = coco_average_precision(data)
        np.testing.assert_allclose(all_precisions(data, ones(data))[:, 0], expected, atol=1e-12)


def test_average_precision_without_true_boxes_is_undefined():
    data = scored_images([([BOX], np.array([0.5]), []), ([], np.zeros(0), [])])
    assert np.isnan(all_precisions(data, ones(data))).all()
    drawn = DrawnBoxes(rank_boxes(data), ones(data))
    assert np.isnan(mean_average_precision(drawn)).all()


@pytest.mark.parametrize("found", [[], [FAR]])
def test_average_precision_without_a_hit_is_zero(found):
    data = scored_images([(found, np.full(len(found), 0.5), [BOX])])
    np.testing.assert_array_equal(all_precisions(data, ones(data)), 0)


def test_precision_is_read_at_the_levels_of_recall():
    data = scored_images(
        [([BOX, FAR], np.array([0.9, 0.8]), [BOX]), ([BOX], np.array([0.7]), [BOX, FAR])]
    )
    values = precision_at_recall(DrawnBoxes(rank_boxes(data), ones(data)), 0.5)
    # Of three true boxes two are hit: at 1/3 of recall precision is 1, at 2/3 it is 2 of 3.
    np.testing.assert_allclose(values[0], [1.0] * 34 + [2 / 3] * 33 + [0.0] * 34)
