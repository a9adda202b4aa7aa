import numpy as np
import pytest

from src.metric import (
    IOU_THRESHOLDS,
    Boxes,
    bootstrap_interval,
    dataset_scores,
    image_scores,
    iou,
    map_iou,
    match_boxes,
    precision_steps,
    single_image,
)
from tests import oracles
from tests.paths import shared

BOX = np.array([[100.0, 100.0, 200.0, 200.0]])


def random_image(rng, *, ties=False):
    n_true, n_pred = rng.integers(0, 5), rng.integers(0, 7)
    true = np.column_stack([rng.uniform(0, 60, (n_true, 2)), rng.uniform(20, 60, (n_true, 2))])
    jittered = true[rng.integers(0, n_true, n_pred)] if n_true else np.full((n_pred, 4), 50.0)
    predicted = jittered + rng.normal(0, 6, (n_pred, 4))
    scores = rng.integers(0, 3, n_pred) / 4 if ties else rng.random(n_pred)
    return true, predicted, scores


def join(images):
    """Lay (true, predicted, scores) triples out as tables, best first within each image."""
    true, predicted, scores = zip(*images, strict=True)
    orders = [np.argsort(-s, kind="stable") for s in scores]

    def table(parts):
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        return Boxes(np.concatenate(parts).reshape(-1, 4), offsets)

    ordered = [boxes[order] for boxes, order in zip(predicted, orders, strict=True)]
    flat_scores = np.concatenate([s[order] for s, order in zip(scores, orders, strict=True)])
    return table(ordered), table(true), flat_scores


def test_iou_of_overlapping_boxes_is_two_thirds():
    assert iou(BOX[0], [100, 100, 300, 200]) == pytest.approx(2 / 3)


def test_iou_of_box_without_area_is_zero():
    assert iou(BOX[0], [150, 150, 0, 20]) == 0
    assert iou(BOX[0], [250, 250, -100, -100]) == 0


def test_map_iou_of_overlap_two_thirds_is_three_quarters():
    assert map_iou(BOX, [[100, 100, 300, 200]], [1]) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [([], [], None), ([], BOX, 0.0), (BOX, [], 0.0), (BOX, BOX, 1.0), (BOX, [*BOX, *BOX], 0.5)],
)
def test_map_iou_counts_empty_and_repeated_boxes(true, predicted, expected):
    assert map_iou(true, predicted, np.arange(len(predicted), 0.0, -1)) == expected


def test_map_iou_equals_the_original_release_on_2000_images():
    golden = np.load(shared("golden") / "map_iou.npz")
    true_end, pred_end = np.cumsum(golden["n_true"]), np.cumsum(golden["n_pred"])
    for i, expected in enumerate(golden["map_iou"]):
        true = golden["boxes_true_xywh"][true_end[i] - golden["n_true"][i] : true_end[i]]
        found = slice(pred_end[i] - golden["n_pred"][i], pred_end[i])
        score = map_iou(true, golden["boxes_pred_xywh"][found], golden["scores"][found])
        assert (np.nan if score is None else score) == pytest.approx(
            expected, abs=1e-9, nan_ok=True
        )


@pytest.mark.parametrize("ties", [False, True])
def test_map_iou_equals_the_plain_loop(ties):
    rng = np.random.default_rng(5)
    for _ in range(500):
        true, predicted, scores = random_image(rng, ties=ties)
        assert map_iou(true, predicted, scores) == pytest.approx(
            oracles.map_iou(true, predicted, scores), abs=1e-12
        )


@pytest.mark.parametrize("ties", [False, True])
def test_dataset_scores_equal_the_plain_loop_at_every_threshold(ties):
    rng = np.random.default_rng(6)
    images = [random_image(rng, ties=ties) for _ in range(5_000)]
    predicted, true, scores = join(images)
    thresholds = [-1.0, 0.0, 0.25, 0.5, 0.9, 2.0]
    fast = dataset_scores(
        predicted, precision_steps(predicted, true), true.counts(), scores, thresholds
    )
    slow = [oracles.dataset_score(images, threshold) for threshold in thresholds]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_kept_boxes_stay_with_their_images():
    boxes = Boxes(np.arange(20.0).reshape(5, 4), np.array([0, 2, 2, 5]))
    kept = boxes.kept(np.array([False, True, True, False, True]))
    np.testing.assert_array_equal(kept.xywh, boxes.xywh[[1, 2, 4]])
    np.testing.assert_array_equal(kept.offsets, [0, 1, 1, 3])
    np.testing.assert_array_equal(kept.images(), [0, 2, 2])
    np.testing.assert_array_equal(boxes.images(), [0, 0, 2, 2, 2])


def test_kept_boxes_may_be_all_or_none():
    boxes = Boxes(np.arange(20.0).reshape(5, 4), np.array([0, 2, 2, 5]))
    everything, nothing = (boxes.kept(np.full(5, keeps)) for keeps in (True, False))
    np.testing.assert_array_equal(everything.xywh, boxes.xywh)
    np.testing.assert_array_equal(everything.offsets, boxes.offsets)
    assert nothing.xywh.shape == (0, 4)
    np.testing.assert_array_equal(nothing.counts(), [0, 0, 0])
    empty = Boxes(np.zeros((0, 4)), np.array([0, 0]))
    assert len(empty.kept(np.zeros(0, dtype=bool)).xywh) == 0


def test_match_boxes_names_the_true_box_of_the_plain_loop():
    rng = np.random.default_rng(9)
    images = [random_image(rng) for _ in range(500)]
    predicted, true, scores = join(images)
    hits = match_boxes(predicted, true)
    assert hits.shape == (len(predicted.xywh), len(IOU_THRESHOLDS))
    expected = np.full(hits.shape, -1)
    for image, start in enumerate(true.offsets[:-1]):
        rows = slice(*predicted.offsets[image : image + 2])
        own = true.xywh[start : true.offsets[image + 1]]
        for t, threshold in enumerate(IOU_THRESHOLDS):
            found = oracles.match_boxes(own, predicted.xywh[rows], scores[rows], threshold)
            expected[rows, t] = [-1 if hit is None else start + hit for hit in found]
    np.testing.assert_array_equal(hits, expected)
    assert (hits[:, 0] != hits[:, -1]).mean() > 0.2, "the thresholds must matter"


def test_a_box_takes_the_first_true_box_that_is_free():
    true = single_image(np.array([[0, 0, 100, 100], [0, 0, 100, 90.0], [300, 0, 9, 9]]))
    found = np.array([[0, 0, 100, 90], [0, 0, 100, 100], [0, 0, 100, 95.0]])
    hits = match_boxes(single_image(found), true, (0.4, 0.95))
    # At .95 the first box overlaps the second true box alone, the second box the first one.
    np.testing.assert_array_equal(hits, [[0, 1], [1, 0], [-1, -1]])


def test_match_boxes_takes_tables_without_boxes():
    nothing, one = Boxes(np.zeros((0, 4)), np.array([0, 0])), single_image(BOX)
    assert match_boxes(nothing, one).shape == (0, len(IOU_THRESHOLDS))
    np.testing.assert_array_equal(match_boxes(one, nothing, (0.4,)), [[-1]])
    assert match_boxes(one, one, ()).shape == (1, 0)


def test_image_scores_equal_the_plain_loop():
    rng = np.random.default_rng(7)
    images = [random_image(rng) for _ in range(200)]
    predicted, true, _ = join(images)
    expected = [oracles.map_iou(*image) for image in images]
    np.testing.assert_allclose(
        image_scores(predicted, true),
        [np.nan if score is None else score for score in expected],
        atol=1e-12,
    )


def test_image_scores_average_to_the_dataset_score():
    rng = np.random.default_rng(7)
    predicted, true, scores = join([random_image(rng) for _ in range(50)])
    steps, n_true = precision_steps(predicted, true), true.counts()
    each = image_scores(predicted.kept(scores > 0.3), true)
    assert np.isnan(each).any()
    assert np.nanmean(each) == pytest.approx(
        dataset_scores(predicted, steps, n_true, scores, [0.3])[0]
    )


def test_dataset_score_is_nan_where_no_image_counts():
    nothing = Boxes(np.zeros((0, 4)), np.array([0, 0, 0]))
    assert np.isnan(dataset_scores(nothing, np.zeros(0), np.zeros(2, int), np.zeros(0), [0.1])[0])


def test_bootstrap_interval_is_that_of_a_mean_of_many():
    rng = np.random.default_rng(8)
    scores = rng.choice([0.0, 0.25, 0.5, 1.0], 2_000)
    scores[rng.random(2_000) < 0.5] = np.nan  # half of the images do not count
    low, high = bootstrap_interval(scores)
    mean, n_counted = np.nanmean(scores), np.isfinite(scores).sum()
    half_width = 1.96 * np.nanstd(scores) / np.sqrt(n_counted)
    assert (low, high) == pytest.approx(
        (mean - half_width, mean + half_width), abs=0.1 * half_width
    )
    assert (low, high) == bootstrap_interval(scores)


def test_bootstrap_interval_draws_the_images_of_a_patient_together():
    rng = np.random.default_rng(9)
    patients = rng.integers(0, 60, 200)
    scores = rng.choice([0.0, 0.5, 1.0], 60)[patients]  # of a patient all alike
    scores[rng.random(200) < 0.3] = np.nan
    means = []
    for _ in range(4000):
        drawn = rng.integers(0, 60, 60)
        rows = np.concatenate([np.flatnonzero(patients == patient) for patient in drawn])
        means.append(np.nanmean(scores[rows]))
    low, high = bootstrap_interval(scores, patients)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.015)
    alone = bootstrap_interval(scores)
    assert high - low > 1.4 * (alone[1] - alone[0])
    assert bootstrap_interval(scores, np.arange(200)[::-1]) == alone


def test_bootstrap_interval_of_equal_scores_has_no_width():
    assert bootstrap_interval(np.array([0.5, np.nan, 0.5])) == (0.5, 0.5)
