import numpy as np
import torch

from src.retinanet.anchors import make_anchors
from src.retinanet.boxes import vote_boxes
from src.retinanet.candidates import find_candidates, find_weak, suppress
from src.retinanet.settings import CandidateLimits, WeakLimits
from src.structures import MAX_CANDIDATES, Detections, RawOutputs
from tests import oracles

SIZE = (64, 64)
ANCHORS = make_anchors(SIZE, (3, 4))
LOG_PROBS = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]).log()


def outputs(seed=0, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    scores = low + (high - low) * torch.rand(2, len(ANCHORS), generator=generator)
    deltas = torch.randn(2, len(ANCHORS), 4, generator=generator)
    return RawOutputs(scores, deltas, LOG_PROBS)


def test_candidates_are_best_first_inside_and_above_half_of_the_top():
    for image in find_candidates(outputs(), ANCHORS, SIZE):
        assert len(image.scores) > 10
        assert (image.scores.diff() <= 0).all()
        assert image.scores[-1] >= image.scores[0] / 2
        assert image.boxes_xyxy.min() >= 0 and image.boxes_xyxy.max() <= 64
        assert (image.boxes_xyxy[:, 2:] > image.boxes_xyxy[:, :2]).all()


def test_images_are_decoded_apart():
    batch = outputs()
    batch.scores[0] = 0.01  # nothing in the first image: the original looked at no other
    first, second = find_candidates(batch, ANCHORS, SIZE)
    alone = find_candidates(RawOutputs(*(part[1:] for part in batch)), ANCHORS, SIZE)[0]
    assert len(first.scores) == 0
    assert torch.equal(second.boxes_xyxy, alone.boxes_xyxy)
    assert torch.equal(second.scores, alone.scores)
    torch.testing.assert_close(second.class_probs, torch.tensor([0.1, 0.1, 0.8]))


def test_scores_up_to_the_minimum_are_no_candidates():
    scores = torch.full((1, len(ANCHORS)), 0.025)
    deltas = torch.zeros(1, len(ANCHORS), 4)
    assert (
        len(find_candidates(RawOutputs(scores, deltas, LOG_PROBS[:1]), ANCHORS, SIZE)[0].scores)
        == 0
    )


def test_boxes_outside_the_image_are_no_candidates_and_no_top():
    scores = torch.zeros(1, len(ANCHORS))
    scores[0, 0], scores[0, 300] = 0.9, 0.1
    deltas = torch.zeros(1, len(ANCHORS), 4)
    deltas[0, 0, :2] = -100  # far to the left and above
    found = find_candidates(RawOutputs(scores, deltas, LOG_PROBS[:1]), ANCHORS, SIZE)[0]
    torch.testing.assert_close(found.scores, torch.tensor([0.1]))


def test_candidates_are_limited():
    anchors = make_anchors((512, 512), (3,))
    scores = torch.rand(1, len(anchors), generator=torch.Generator().manual_seed(1)) / 2 + 0.5
    found = find_candidates(
        RawOutputs(scores, torch.zeros(1, len(anchors), 4), LOG_PROBS[:1]), anchors, (512, 512)
    )
    assert len(found[0].scores) == MAX_CANDIDATES
    torch.testing.assert_close(found[0].scores, scores[0].sort(descending=True)[0][:MAX_CANDIDATES])


def test_suppress_equals_the_plain_loop():
    candidates = find_candidates(outputs(seed=2, low=0.6), ANCHORS, SIZE)
    for threshold in (0.05, 0.5):
        for before, after in zip(candidates, suppress(candidates, threshold), strict=True):
            kept = oracles.nms(before.boxes_xyxy.tolist(), before.scores.tolist(), threshold)
            np.testing.assert_array_equal(after.scores, before.scores[kept])
            np.testing.assert_array_equal(after.boxes_xyxy, before.boxes_xyxy[kept])


def test_suppress_of_nothing_is_nothing():
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.ones(3) / 3)
    assert [len(image.scores) for image in suppress([empty, empty], 0.05)] == [0, 0]


def test_candidates_follow_their_limits():
    scores = torch.zeros(1, len(ANCHORS))
    scores[0, [0, 300, 310, 330]] = torch.tensor([0.9, 0.5, 0.3, 0.02])
    raw = RawOutputs(scores, torch.zeros(1, len(ANCHORS), 4), LOG_PROBS[:1])
    for limits, n in (
        (CandidateLimits(), 2),
        (CandidateLimits(min_share_of_top=0.3), 3),
        (CandidateLimits(min_share_of_top=0.0), 3),
        (CandidateLimits(min_share_of_top=0.0, min_score=0.01), 4),
        (CandidateLimits(min_score=0.6), 1),
    ):
        assert len(find_candidates(raw, ANCHORS, SIZE, limits)[0].scores) == n


def test_candidates_vote_within_their_image():
    raw, limits = outputs(), CandidateLimits(voting_iou=0.5)
    plain, voted = find_candidates(raw, ANCHORS, SIZE), find_candidates(raw, ANCHORS, SIZE, limits)
    assert len(plain[0].scores) != len(plain[1].scores)
    for before, after in zip(plain, voted, strict=True):
        assert torch.equal(before.scores, after.scores)
        assert not torch.equal(before.boxes_xyxy, after.boxes_xyxy)
        expected = vote_boxes(before.boxes_xyxy, before.scores, SIZE, 0.5)
        torch.testing.assert_close(after.boxes_xyxy, expected)


def test_votes_stay_in_the_image():
    anchors, generator = torch.tensor([[30.0, 20, 90, 90]]).expand(500, 4), torch.Generator()
    scores = 0.03 + torch.rand(200, 500, generator=generator.manual_seed(0)) * 0.9
    raw = RawOutputs(scores, torch.zeros(200, 500, 4), LOG_PROBS[:1].expand(200, 3))
    found = find_candidates(raw, anchors, (63, 63), CandidateLimits(voting_iou=0.5))
    assert torch.cat([image.boxes_xyxy for image in found]).max() == 63


def all_boxes(raw, image):
    """Decode every anchor of an image that scores at all, best first."""
    everything = CandidateLimits(min_score=0.0, min_share_of_top=0.0)
    return find_candidates(raw, ANCHORS, SIZE, everything)[image]


def test_weak_boxes_are_the_best_that_are_no_candidates_and_overlap_nothing_better():
    raw, weak = outputs(seed=4), WeakLimits(max_count=20, max_iou=0.7)
    found = find_candidates(raw, ANCHORS, SIZE)
    for image, boxes in enumerate(find_weak(raw, ANCHORS, SIZE, found, weak=weak)):
        every = all_boxes(raw, image)
        n_found = len(found[image].scores)
        kept = oracles.nms(every.boxes_xyxy.tolist(), every.scores.tolist(), 0.7)
        expected = [row for row in kept if row >= n_found][:20]
        assert len(expected) > 5
        np.testing.assert_array_equal(boxes.scores, every.scores[expected])
        np.testing.assert_array_equal(boxes.boxes_xyxy, every.boxes_xyxy[expected])
        assert boxes.scores[0] < found[image].scores[-1]


def test_weak_boxes_follow_their_limits():
    scores = torch.zeros(1, len(ANCHORS))
    scores[0, [0, 300, 310, 330]] = torch.tensor([0.9, 0.3, 0.02, 0.004])
    raw = RawOutputs(scores, torch.zeros(1, len(ANCHORS), 4), LOG_PROBS[:1])
    found = find_candidates(raw, ANCHORS, SIZE)
    for limits, expected in (
        (WeakLimits(max_iou=1.0), [0.3, 0.02]),
        (WeakLimits(max_iou=1.0, min_score=0.001), [0.3, 0.02, 0.004]),
        (WeakLimits(max_iou=1.0, min_score=0.02), [0.3]),
        (WeakLimits(max_iou=1.0, max_count=1), [0.3]),
        (WeakLimits(max_count=0), []),
    ):
        (weak,) = find_weak(raw, ANCHORS, SIZE, found, weak=limits)
        torch.testing.assert_close(weak.scores, torch.tensor(expected))


def test_an_image_without_candidates_has_weak_boxes():
    scores = torch.full((1, len(ANCHORS)), 0.02)
    raw = RawOutputs(scores, torch.zeros(1, len(ANCHORS), 4), LOG_PROBS[:1])
    found = find_candidates(raw, ANCHORS, SIZE)
    assert len(found[0].scores) == 0
    (weak,) = find_weak(raw, ANCHORS, SIZE, found)
    assert len(weak.scores) > 10


def test_boxes_are_located_where_weak_ones_may_be():
    limits = CandidateLimits()
    assert WeakLimits().least_score(limits) == 0.005
    assert WeakLimits(min_score=0.1).least_score(limits) == limits.min_score
    assert WeakLimits(max_count=0).least_score(limits) == limits.min_score
