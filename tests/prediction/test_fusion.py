"""Fusing the boxes of several detectors: by hand, and against the library ensemble-boxes."""

import numpy as np
import pytest

from src.prediction.fused_submission import fuse_boxes
from src.prediction.fusion import fuse_by_nms, fuse_by_soft_nms, fuse_by_vote, fuse_by_wbf
from src.prediction.fusion_settings import METHODS, Fusion, choose_fusion
from src.system.errors import InputError
from tests.oracles import iou, xywh

SIDE = 1024  # pixels of an image
EMPTY = np.zeros((0, 4))
WAYS = [
    pytest.param(fuse_by_nms, {}, id="nms"),
    pytest.param(fuse_by_soft_nms, {}, id="gaussian"),
    pytest.param(fuse_by_soft_nms, {"decay": "linear"}, id="linear"),
    pytest.param(fuse_by_wbf, {}, id="wbf"),
    pytest.param(fuse_by_vote, {"min_votes": 2}, id="vote"),
    pytest.param(fuse_by_vote, {"min_votes": 2, "average": "median"}, id="median"),
]


@pytest.fixture(scope="module")
def library():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes longer than the tests
        return pytest.importorskip("ensemble_boxes")


def random_boxes(rng, count):
    corners = rng.uniform(0, 0.6 * SIDE, (count, 2))
    return np.hstack([corners, corners + rng.uniform(0.1 * SIDE, 0.4 * SIDE, (count, 2))])


def random_detectors(seed, n_detectors=3, n_objects=6):
    """Boxes of detectors that look at the same objects; each finds some, and some of its own."""
    rng = np.random.default_rng(seed)
    objects = random_boxes(rng, n_objects)
    boxes = []
    for _ in range(n_detectors):
        seen = objects[rng.random(n_objects) < 0.7]
        moved = seen + rng.normal(0, 0.03 * SIDE, seen.shape)
        boxes.append(np.vstack([moved, random_boxes(rng, rng.integers(0, 4))]).clip(0, SIDE))
    return boxes, [rng.uniform(0.01, 1, len(own)) for own in boxes]


def few_detectors(seed, n_detectors=4):
    """Boxes of detectors that find each of some objects far apart once at most."""
    rng = np.random.default_rng(seed)
    sides = (20, 370, 720)
    places = np.array([[x, y, x + 200, y + 200] for x in sides for y in sides])
    boxes = []
    for _ in range(n_detectors):
        seen = places[rng.random(len(places)) < 0.7].astype(float)
        boxes.append((seen + rng.normal(0, 25, seen.shape)).clip(0, SIDE))
    return boxes, [rng.uniform(0.01, 1, len(own)) for own in boxes]


def labels_of(scores):
    return [np.zeros(len(own)) for own in scores]


def scaled(boxes):
    return [own / SIDE for own in boxes]


def assert_same(fused, boxes, scores):
    """Compare with what the library returns; it computes in float32."""
    order = np.argsort(-scores, kind="stable")
    np.testing.assert_allclose(fused[1], scores[order], rtol=1e-5)
    np.testing.assert_allclose(fused[0], boxes[order] * SIDE, atol=1e-3)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("limit", [0.1, 0.5, 0.8])
def test_wbf_of_equal_weights_is_the_librarys(library, seed, limit):
    boxes, scores = random_detectors(seed)
    fused = fuse_by_wbf(boxes, scores, [2, 2, 2], iou=limit)
    arguments = (scaled(boxes), scores, labels_of(scores))
    expected = library.weighted_boxes_fusion(*arguments, iou_thr=limit)
    assert len(fused[1]) < sum(map(len, scores)) or limit == 0.8
    assert_same(fused, *expected[:2])


@pytest.mark.parametrize("seed", range(30))
def test_wbf_with_weights_is_the_librarys_where_each_detector_has_one_box(library, seed):
    boxes, scores = few_detectors(seed)
    weights = np.random.default_rng(seed).uniform(0.2, 3, len(boxes)).tolist()
    fused = fuse_by_wbf(boxes, scores, weights, iou=0.3)
    arguments = (scaled(boxes), scores, labels_of(scores))
    expected = library.weighted_boxes_fusion(*arguments, weights=weights, iou_thr=0.3)
    assert_same(fused, *expected[:2])


@pytest.mark.parametrize("seed", range(10))
def test_weak_boxes_are_skipped_as_the_library_does(library, seed):
    boxes, scores = random_detectors(seed)
    fusion = choose_fusion("wbf", {"skip_below": 0.4}, n_detectors=3)
    fused = fuse_boxes(list(zip(boxes, scores, strict=True)), [1, 1, 1], fusion)
    arguments = (scaled(boxes), scores, labels_of(scores))
    expected = library.weighted_boxes_fusion(*arguments, iou_thr=0.5, skip_box_thr=0.4)
    assert_same(fused, *expected[:2])


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_nms_keeps_the_librarys_boxes(library, seed, weights):
    boxes, scores = random_detectors(seed)
    fused = fuse_by_nms(boxes, scores, weights or [1, 1, 1], iou=0.3)
    arguments = (scaled(boxes), list(scores), labels_of(scores))
    expected = library.nms(*arguments, iou_thr=0.3, weights=weights)
    factor = 1 if weights is None else sum(weights) / max(weights)
    assert_same(fused, expected[0], expected[1] * factor)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(("method", "decay"), [(1, "linear"), (2, "gaussian")])
def test_soft_nms_keeps_the_librarys_boxes_and_lowers_scores_as_it_does(
    library, seed, method, decay
):
    boxes, scores = random_detectors(seed)
    fused = fuse_by_soft_nms(boxes, scores, [1, 1, 1], decay=decay, sigma=0.3, iou=0.3)
    table, values = np.concatenate(scaled(boxes)), np.concatenate(scores)
    soft_nms = library.ensemble_boxes_nms.cpu_soft_nms_float
    kept = soft_nms(table, values, Nt=0.3, sigma=0.3, thresh=0.001, method=method)
    lowered = values[values > 0.001]  # the function changes its argument
    assert (fused[1] < np.sort(np.concatenate(scores)[kept])[::-1]).any()
    assert_same(fused, table[kept], lowered)


# What the library does otherwise, and why it is not done here.


def test_soft_nms_returns_the_lowered_scores_and_not_those_before(library):
    """The library lowers a copy and returns the scores before: only its choice is soft."""
    boxes = [np.array([[0.0, 0, 100, 100]]), np.array([[0.0, 0, 100, 80]])]
    scores = [np.array([0.9]), np.array([0.8])]
    theirs = library.soft_nms(scaled(boxes), scores, labels_of(scores), sigma=0.5)
    assert sorted(theirs[1]) == [0.8, 0.9]
    ours = fuse_by_soft_nms(boxes, scores, [1, 1], sigma=0.5)
    np.testing.assert_allclose(ours[1], [0.9, 0.8 * np.exp(-(0.8**2) / 0.5)])


def test_equal_weights_are_no_weights(library):
    """The library's NMS divides scores by the sum of the weights, unless none are given."""
    boxes, scores = [np.array([[0.0, 0, 100, 100]]), EMPTY], [np.array([0.9]), np.zeros(0)]
    theirs = library.nms(scaled(boxes), list(scores), labels_of(scores), weights=[1, 1])
    assert theirs[1].tolist() == [0.45]
    for way in (fuse_by_nms, fuse_by_soft_nms):
        assert way(boxes, scores, [7, 7])[1].tolist() == [0.9]


def test_wbf_never_exceeds_the_scores_of_its_cluster(library):
    """The library counts boxes where it means detectors: two of a heavy one give 1.62."""
    box = [100.0, 100, 200, 200]
    boxes, scores = [EMPTY, np.array([box, box])], [np.zeros(0), np.array([0.9, 0.9])]
    arguments = (scaled(boxes), scores, labels_of(scores))
    theirs = library.weighted_boxes_fusion(*arguments, weights=[1, 9])
    assert theirs[1] == pytest.approx([1.62])
    assert fuse_by_wbf(boxes, scores, [1, 9])[1] == pytest.approx([0.9])


@pytest.mark.filterwarnings("ignore:invalid value")
def test_wbf_of_boxes_of_score_0_is_their_mean(library):
    """The library divides by the sum of the scores."""
    boxes = [np.array([[0.0, 0, 100, 100]]), np.array([[0.0, 0, 100, 80]])]
    scores = [np.zeros(1), np.zeros(1)]
    theirs = library.weighted_boxes_fusion(scaled(boxes), scores, labels_of(scores))
    assert np.isnan(theirs[0]).all()
    ours = fuse_by_wbf(boxes, scores, [1, 3])
    np.testing.assert_allclose(ours[0], [[0, 0, 100, 85]])
    assert ours[1].tolist() == [0]


def test_equal_scores_leave_nothing_to_the_order_of_the_detectors(library):
    """The library takes the last of equal scores first."""
    boxes = [np.array([[0.0, 0, 100, 100]]), np.array([[0.0, 0, 100, 80]])]
    scores = [np.array([0.5]), np.array([0.5])]
    ways = [(boxes, scores), (boxes[::-1], scores)]
    theirs = [library.nms(scaled(own), list(values), labels_of(values)) for own, values in ways]
    assert theirs[0][0].tolist() != theirs[1][0].tolist()
    ours = [fuse_by_nms(own, values, [1, 1]) for own, values in ways]
    assert ours[0][0].tolist() == ours[1][0].tolist() == [[0, 0, 100, 80]]


# By hand.

A, B, FAR = [0.0, 0, 100, 100], [0.0, 0, 100, 60], [500.0, 500, 600, 600]  # A and B: IoU .6


def test_nms_weighs_scores_before_it_compares_them():
    boxes, scores = [np.array([A]), np.array([B, FAR])], [np.array([0.9]), np.array([0.5, 0.4])]
    even = fuse_by_nms(boxes, scores, [1, 1])
    assert (even[0].tolist(), even[1].tolist()) == ([A, FAR], [0.9, 0.4])
    uneven = fuse_by_nms(boxes, scores, [1, 2])
    assert (uneven[0].tolist(), uneven[1].tolist()) == ([B, FAR], [0.5, 0.4])


@pytest.mark.parametrize(("limit", "n_kept"), [(0.59, 1), (0.61, 2)])
def test_nms_keeps_boxes_that_overlap_up_to_the_limit(limit, n_kept):
    fused = fuse_by_nms([np.array([A]), np.array([B])], [[0.9], [0.8]], [1, 1], iou=limit)
    assert len(fused[1]) == n_kept


def test_linear_soft_nms_lowers_scores_above_the_limit_alone():
    boxes, scores = [np.array([A]), np.array([B, FAR])], [[0.9], [0.8, 0.4]]
    soft = fuse_by_soft_nms(boxes, scores, [1, 1], decay="linear", iou=0.5)
    np.testing.assert_allclose(soft[1], [0.9, 0.4, 0.32])
    assert soft[0].tolist() == [A, FAR, B]
    apart = fuse_by_soft_nms(boxes, scores, [1, 1], decay="linear", iou=0.7)
    assert apart[1].tolist() == [0.9, 0.8, 0.4]


def test_soft_nms_drops_boxes_of_little_score():
    boxes, scores = [np.array([A]), np.array([A])], [[0.9], [0.8]]
    assert len(fuse_by_soft_nms(boxes, scores, [1, 1], sigma=0.1)[1]) == 1
    assert len(fuse_by_soft_nms(boxes, scores, [1, 1], sigma=0.1, min_score=0)[1]) == 2


def test_wbf_weighs_boxes_by_score_and_detector():
    boxes, scores = [np.array([A]), np.array([B, FAR]), EMPTY], [[0.6], [0.4, 0.5], []]
    fused = fuse_by_wbf(boxes, scores, [1, 3, 1])
    bottom = (0.6 * 100 + 3 * 0.4 * 60) / (0.6 + 3 * 0.4)
    np.testing.assert_allclose(fused[0], [[0, 0, 100, bottom], FAR])
    np.testing.assert_allclose(fused[1], [(0.6 + 3 * 0.4) / 5, 3 * 0.5 / 5])


def test_wbf_of_more_boxes_than_detectors_takes_their_mean():
    boxes, scores = [np.array([A, B]), np.array([B])], [[0.9, 0.3], [0.6]]
    np.testing.assert_allclose(fuse_by_wbf(boxes, scores, [1, 1])[1], [0.6])


@pytest.mark.parametrize(("min_votes", "n_boxes"), [(1, 2), (2, 1), (3, 0)])
def test_a_vote_needs_that_many_detectors(min_votes, n_boxes):
    boxes, scores = [np.array([A]), np.array([B, FAR]), EMPTY], [[0.9], [0.6, 0.3], []]
    fused = fuse_by_vote(boxes, scores, [1, 1, 1], min_votes=min_votes)
    expected = [[0, 0, 100, 80], FAR][:n_boxes]
    np.testing.assert_allclose(fused[0], np.array(expected).reshape(-1, 4))
    np.testing.assert_allclose(fused[1], [0.5, 0.1][:n_boxes])


def test_a_detector_has_one_vote_its_best_box():
    boxes, scores = [np.array([A]), np.array([B, A])], [[0.9], [0.6, 0.3]]
    fused = fuse_by_vote(boxes, scores, [1, 1], min_votes=2)
    np.testing.assert_allclose(fused[0], [[0, 0, 100, 80]])
    assert fused[1] == pytest.approx([0.75])
    alone = fuse_by_vote([boxes[1], EMPTY], [scores[1], []], [1, 1], min_votes=2)
    assert len(alone[1]) == 0


def test_a_vote_weighs_boxes_and_scores_by_detector():
    boxes, scores = [np.array([A]), np.array([B])], [[0.9], [0.6]]
    fused = fuse_by_vote(boxes, scores, [3, 1], min_votes=2)
    np.testing.assert_allclose(fused[0], [[0, 0, 100, 90]])
    np.testing.assert_allclose(fused[1], [(3 * 0.9 + 0.6) / 4])


@pytest.mark.parametrize("n_detectors", [2, 3, 4, 5])
def test_the_median_of_equal_weights_is_the_usual_one(n_detectors):
    rng = np.random.default_rng(n_detectors)
    boxes = [np.array([A]) + rng.normal(0, 3, 4) for _ in range(n_detectors)]
    scores = [[0.5]] * n_detectors
    fused = fuse_by_vote(boxes, scores, [1] * n_detectors, average="median")
    np.testing.assert_allclose(fused[0][0], np.median(np.concatenate(boxes), axis=0))


def test_the_median_goes_with_more_than_half_of_the_weight():
    boxes = [np.array([[0.0, 0, 100, bottom]]) for bottom in (80, 90, 100)]
    fused = fuse_by_vote(boxes, [[0.5]] * 3, [1, 1, 3], average="median")
    assert fused[0].tolist() == [[0, 0, 100, 100]]


# What holds for every way.


@pytest.mark.parametrize("way", [fuse_by_nms, fuse_by_wbf, fuse_by_vote])
def test_a_single_detector_without_overlaps_stays_as_it_is(way):
    boxes, scores = random_detectors(3, n_detectors=1)
    pairs = xywh(boxes[0])
    overlaps = [iou(one, other) for i, one in enumerate(pairs) for other in pairs[:i]]
    fused = way(boxes, scores, [3], iou=max(overlaps))
    order = np.argsort(-scores[0])
    assert fused[0].tolist() == boxes[0][order].tolist()
    assert fused[1].tolist() == scores[0][order].tolist()


@pytest.mark.parametrize(("way", "settings"), WAYS)
def test_nothing_comes_of_nothing(way, settings):
    for boxes, scores in (([EMPTY, EMPTY], [[], []]), ([[[5, 5, 5, 9]], EMPTY], [[0.9], []])):
        fused = way(boxes, scores, [1, 2], **settings)
        assert (fused[0].shape, fused[1].shape) == ((0, 4), (0,))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("way", "settings"), WAYS)
def test_the_order_of_detectors_and_boxes_does_not_matter(way, settings, seed):
    boxes, scores = random_detectors(seed)
    boxes = [own.round(-2) for own in boxes]  # so that some are equal
    scores = [own.round(1) for own in scores]
    weights = [1.0, 0.7, 1.9]
    fused = way(boxes, scores, weights, **settings)
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(len(own)) for own in boxes]
    places = rng.permutation(3)
    again = way(
        [boxes[i][shuffled[i]] for i in places],
        [scores[i][shuffled[i]] for i in places],
        [weights[i] for i in places],
        **settings,
    )
    assert again[0].tolist() == fused[0].tolist()
    assert again[1].tolist() == fused[1].tolist()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("way", "settings"), WAYS)
def test_fused_boxes_stay_in_their_bounds_best_first(way, settings, seed):
    boxes, scores = random_detectors(seed)
    scores = [own.round() for own in scores]
    fused = way(boxes, scores, [0.1, 0.7, 0.3], **settings)
    assert ((fused[0] >= 0) & (fused[0] <= SIDE)).all()
    assert (fused[0][:, 2:] > fused[0][:, :2]).all()
    assert ((fused[1] >= 0) & (fused[1] <= 1)).all()
    assert (np.diff(fused[1]) <= 0).all()


def test_inputs_stay_as_they_are():
    boxes, scores = random_detectors(0)
    before = [own.copy() for own in (*boxes, *scores)]
    for method in METHODS:
        fusion = choose_fusion(method, {}, n_detectors=3)
        fuse_boxes(list(zip(boxes, scores, strict=True)), [1, 2, 3], fusion)
    for own, earlier in zip((*boxes, *scores), before, strict=True):
        np.testing.assert_array_equal(own, earlier)


def test_thresholds_take_scores_that_reach_them():
    found = [(np.array([A, FAR]), np.array([0.5, 0.4])), (np.array([B]), np.array([0.3]))]
    skipping = fuse_boxes(found, [1, 1], Fusion(method="nms", iou=0.7, skip_below=0.4))
    assert skipping[1].tolist() == [0.5, 0.4]
    late = fuse_boxes(found, [1, 1], Fusion(method="nms", iou=0.7, threshold=0.5))
    assert late[1].tolist() == [0.5]


def test_a_fusion_has_what_its_method_uses():
    assert choose_fusion("wbf", {"iou": 0.4, "sigma": None}, n_detectors=2) == Fusion(
        method="wbf", iou=0.4
    )
    vote = Fusion(method="vote", iou=0.5, min_votes=2, average="mean")
    assert choose_fusion("vote", {}, n_detectors=3) == vote
    soft = Fusion(method="soft-nms", decay="gaussian", sigma=0.5)
    assert choose_fusion("soft-nms", {}, n_detectors=3) == soft


@pytest.mark.parametrize(
    ("method", "flags", "words"),
    [
        ("wbf", {"sigma": 0.5}, "--sigma has no effect with --method wbf"),
        ("nms", {"min_votes": 1}, "--min-votes has no effect with --method nms"),
        ("soft-nms", {"iou": 0.5}, "--iou has no effect with --method soft-nms --decay gaussian"),
        ("soft-nms", {"decay": "linear", "sigma": 1.0}, "--sigma has no effect"),
        ("vote", {"min_votes": 3}, "--min-votes 3: there are only 2 inputs"),
    ],
)
def test_settings_without_an_effect_are_refused(method, flags, words):
    with pytest.raises(InputError, match=words):
        choose_fusion(method, flags, n_detectors=2)
