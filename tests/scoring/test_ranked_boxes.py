import numpy as np
import pytest

from src.metric import match_boxes, single_image
from src.scoring.ranked_boxes import COCO_IOUS, IOUS, DrawnBoxes, coco_hits, rank_boxes
from tests import oracles
from tests.made_scored_images import ones, random_images, scored_images


def plain_hits(found, true, threshold):
    """Whether each found box, best first, hits: the free true box that it overlaps most."""
    free, hits = list(range(len(true))), []
    for box in found:
        close = [t for t in free if oracles.iou(box, true[t]) >= threshold]
        hits.append(bool(close))
        if close:
            free.remove(max(close, key=lambda t: (oracles.iou(box, true[t]), t)))
    return hits


def test_hits_are_those_of_the_plain_loop():
    data = random_images(np.random.default_rng(0), 300)
    hits = coco_hits(data.predicted, data.true)
    assert 0.1 < hits[:, 0].mean() < 0.9
    for image in range(len(data.ids)):
        rows = slice(*data.predicted.offsets[image : image + 2])
        true = data.true.xywh[slice(*data.true.offsets[image : image + 2])]
        for t, threshold in enumerate(IOUS):
            expected = plain_hits(data.predicted.xywh[rows], true, threshold)
            assert hits[rows, t].tolist() == expected


def test_a_box_takes_the_true_box_that_it_overlaps_most():
    true = single_image(np.array([[0, 0, 100, 60], [0, 0, 100, 100.0]]))
    found = single_image(np.array([[0, 0, 100, 90], [0, 0, 100, 100.0]]))
    # The first takes the second true box; the other one is too small for the second at .65.
    assert coco_hits(found, true, (0.6, 0.65)).tolist() == [[True, True], [True, False]]
    assert (match_boxes(found, true, (0.65,)) >= 0).all(), "the challenge's rule: both hit"


def test_of_equal_overlaps_a_box_takes_the_last():
    true = single_image(np.array([[0, 0, 10, 10], [10, 0, 10, 10.0]]))
    found = single_image(np.array([[0, 0, 20, 10], [10, 0, 10, 10.0]]))
    assert coco_hits(found, true, (0.5,)).tolist() == [[True], [False]]


def test_coco_s_thresholds_are_named_by_their_usual_numbers():
    assert (0.5 in COCO_IOUS, 0.75 in COCO_IOUS, len(COCO_IOUS)) == (True, True, 10)


def test_boxes_are_ranked_over_all_images_and_equal_ones_by_image():
    box = [0, 0, 10, 10]
    data = scored_images(
        [([box, box], np.array([0.9, 0.5]), [box]), ([box, box], np.array([0.9, 0.95 - 0.45]), [])]
    )
    ranked = rank_boxes(data)
    assert ranked.images.tolist() == [0, 1, 0, 1]
    assert ranked.stops.tolist() == [0, 1, 3]  # a hit, the end of its score, the end of all
    assert ranked.hits[:, 0].tolist() == [True, False, False]
    assert ranked.ends[0] == 1


def test_only_the_best_100_boxes_of_an_image_are_ranked():
    box = [0, 0, 10, 10]
    scores = np.linspace(1, 0, 150)
    far = [[50.0, 50, 10, 10]]
    data = scored_images([(far * 100 + [box] * 50, scores, [box]), ([box], np.array([0.1]), [box])])
    drawn = DrawnBoxes(rank_boxes(data), ones(data))
    assert drawn.n_found[:, -1] == 101
    stops, n_hits = drawn.hits_at(0.5)
    assert n_hits.tolist() == [[1]]
    assert stops.tolist() == [0]


def test_weights_count_boxes_images_and_truth():
    data = random_images(np.random.default_rng(1), 40)
    weights = np.random.default_rng(2).integers(0, 4, (3, 40))
    drawn = DrawnBoxes(rank_boxes(data), weights)
    np.testing.assert_array_equal(drawn.n_found[:, -1], weights @ data.predicted.counts())
    np.testing.assert_array_equal(drawn.n_true, weights @ data.true.counts())
    np.testing.assert_array_equal(drawn.n_images, weights.sum(axis=1))


@pytest.mark.parametrize("iou", [0.45, 0.6000001])
def test_hits_at_another_iou_are_refused(iou):
    data = random_images(np.random.default_rng(1), 4)
    with pytest.raises(ValueError, match="not in tuple"):
        DrawnBoxes(rank_boxes(data), ones(data)).hits_at(iou)
