import numpy as np
import torch
from torchvision.ops import generalized_box_iou

from src.retinanet.boxes import (
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    paired_giou,
    vote_boxes,
)
from tests import oracles
from tests.paths import shared

IMAGE = (150, 150)  # random boxes lie in it


def random_boxes(rng, n):
    corner = rng.uniform(0, 90, (n, 2))
    return np.hstack([corner, corner + rng.uniform(1, 60, (n, 2))])


def test_box_iou_equals_the_plain_loop():
    rng = np.random.default_rng(0)
    boxes, others = random_boxes(rng, 12), random_boxes(rng, 9)

    def to_xywh(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    expected = [[oracles.iou(to_xywh(a), to_xywh(b)) for b in others] for a in boxes]
    found = box_iou(torch.from_numpy(boxes), torch.from_numpy(others))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_box_iou_of_padding_is_zero():
    assert box_iou(torch.tensor([[0.0, 0, 9, 9]]), torch.zeros(1, 4)).item() == 0


def test_giou_equals_torchvisions():
    rng = np.random.default_rng(2)
    boxes, others = (torch.from_numpy(random_boxes(rng, 200)) for _ in range(2))
    expected = generalized_box_iou(boxes, others).diagonal()
    assert (expected < 0).any() and (expected > 0).any()
    torch.testing.assert_close(paired_giou(boxes, others), expected)


def test_giou_is_one_of_equal_boxes_and_falls_with_the_distance():
    box = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    moved = [paired_giou(box, box + torch.tensor([x, 0.0, x, 0.0])).item() for x in (0, 5, 20, 90)]
    assert moved[0] == 1
    assert moved == sorted(moved, reverse=True)
    assert -1 < moved[-1] < -0.7


def test_voting_equals_the_plain_loop():
    rng = np.random.default_rng(3)
    boxes, scores = random_boxes(rng, 90), rng.uniform(0.1, 1, 90)
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    voters = [np.flatnonzero(overlaps[i] > 0.4) for i in range(90)]
    assert {1, 2, 3} <= {len(own) for own in voters}
    expected = [np.average(boxes[own], axis=0, weights=scores[own]) for own in voters]
    found = vote_boxes(torch.from_numpy(boxes), torch.from_numpy(scores), IMAGE, 0.4)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_boxes_without_score_have_no_vote_and_small_scores_have_one():
    boxes = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 10, 10], [0, 0, 8, 10]]])
    found = vote_boxes(boxes, torch.tensor([[1e-30, 3e-30, 0]]), IMAGE, 0.5)
    torch.testing.assert_close(found[0, :2], torch.tensor([[0, 0, 9.5, 9.5]]).expand(2, 4))
    assert found.isfinite().all()


def test_without_voting_boxes_stay():
    boxes = torch.rand(5, 4)
    assert vote_boxes(boxes, torch.rand(5), IMAGE, 1.0) is boxes


def test_decode_inverts_encode():
    rng = np.random.default_rng(1)
    boxes = torch.from_numpy(random_boxes(rng, 50))
    anchors = torch.from_numpy(random_boxes(rng, 50))
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes)


def test_decode_and_clip_equal_the_original_release_inside_the_image():
    golden = np.load(shared("golden") / "decode_clip.npz")
    anchors = torch.from_numpy(np.load(shared("golden") / "anchors_128_p2.npz")["anchors"])
    decoded = decode_boxes(torch.from_numpy(golden["regression"]), anchors)
    boxes = clip_boxes(decoded, (128, 128)).numpy()
    # The original leaves boxes inverted that lie wholly outside; ours have no area.
    upright = (golden["boxes"][..., 2:] >= golden["boxes"][..., :2]).all(axis=-1)
    np.testing.assert_allclose(boxes[upright], golden["boxes"][upright], atol=2e-3)
    outside = boxes[~upright]
    assert upright.mean() > 0.5
    assert ((outside[:, 2:] <= outside[:, :2]).any(axis=1)).all()


def test_clip_holds_every_coordinate_inside():
    boxes = torch.tensor([[-50.0, -10, -5, 20], [150, 10, 170, 300], [10, 20, 30, 40]])
    clipped = clip_boxes(boxes, (200, 100))
    assert clipped.tolist() == [[0, 0, 0, 20], [100, 10, 100, 200], [10, 20, 30, 40]]
