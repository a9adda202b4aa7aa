import math

import numpy as np
import pytest
import torch

from src.retinanet.anchors import make_anchors
from src.retinanet.losses import (
    Matches,
    box_loss,
    detection_losses,
    focal_loss,
    match_anchors,
)
from src.retinanet.settings import LossSettings
from src.structures import Losses, RawOutputs, Target
from tests import oracles
from tests.paths import shared


def golden_batch():
    golden = np.load(shared("golden") / "focal_loss.npz")
    anchors = torch.from_numpy(np.load(shared("golden") / "anchors_128_p2.npz")["anchors"])
    scores = torch.from_numpy(golden["classification"][..., 0]).requires_grad_()
    deltas = torch.from_numpy(golden["regression"]).requires_grad_()
    boxes = [
        torch.from_numpy(rows[rows[:, 4] >= 0][:, :4]) for rows in golden["annotations"]
    ]  # rows of -1 pad
    return golden, anchors, scores, deltas, boxes


def test_losses_and_gradients_equal_the_original_release():
    golden, anchors, scores, deltas, boxes = golden_batch()
    targets = [Target(image_boxes, 0) for image_boxes in boxes]
    losses = detection_losses(RawOutputs(scores, deltas, torch.zeros(4, 3)), anchors, targets)
    assert losses.classification.item() == pytest.approx(golden["loss_classification"][0], rel=1e-5)
    assert losses.regression.item() == pytest.approx(golden["loss_regression"][0], rel=1e-5)
    (losses.classification + losses.regression).backward()
    assert scores.grad is not None and deltas.grad is not None
    np.testing.assert_allclose(
        scores.grad.abs().sum(dim=1), golden["grad_classification_sum"], rtol=1e-4
    )
    np.testing.assert_allclose(
        deltas.grad.abs().sum(dim=(1, 2)), golden["grad_regression_sum"], rtol=1e-4, atol=1e-9
    )


def test_losses_of_each_image_equal_the_original_release():
    golden, anchors, scores, deltas, boxes = golden_batch()
    matches = match_anchors(anchors, boxes)
    found = torch.stack([focal_loss(scores, matches), box_loss(deltas, anchors, matches)], dim=1)
    np.testing.assert_allclose(found.detach(), golden["per_image"], rtol=1e-5)


def test_losses_equal_the_plain_loop():
    rng = np.random.default_rng(3)
    anchors = make_anchors((64, 64), (4, 5))
    boxes = [np.array([[4.0, 6, 60, 58], [0, 30, 40, 64]]), np.zeros((0, 4))]
    scores, deltas = rng.random((2, len(anchors))), rng.normal(0, 1, (2, len(anchors), 4))
    matches = match_anchors(anchors.double(), [torch.from_numpy(b) for b in boxes])
    classification = focal_loss(torch.from_numpy(scores), matches)
    regression = box_loss(torch.from_numpy(deltas), anchors.double(), matches)
    for i in range(2):
        expected = oracles.focal_and_box_loss(scores[i], deltas[i], anchors.numpy(), boxes[i])
        assert (classification[i].item(), regression[i].item()) == pytest.approx(expected)
    assert regression[0] > 0


def test_a_batch_without_boxes_has_no_box_loss_and_a_gradient():
    anchors = make_anchors((64, 64), (5,))
    scores = torch.full((2, len(anchors)), 0.3, requires_grad=True)
    deltas = torch.ones(2, len(anchors), 4, requires_grad=True)
    targets = [Target(torch.zeros(0, 4), 1)] * 2
    losses = detection_losses(RawOutputs(scores, deltas, torch.zeros(2, 3)), anchors, targets)
    losses.total().backward()
    assert losses.regression.item() == 0
    assert losses.classification.item() > 0
    assert deltas.grad is not None and deltas.grad.abs().sum() == 0


def test_losses_of_a_batch_are_the_mean_of_its_images():
    _, anchors, scores, deltas, boxes = golden_batch()
    log_probs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)
    targets = [Target(b, i % 3) for i, b in enumerate(boxes)]
    batch = detection_losses(RawOutputs(scores, deltas, log_probs), anchors, targets)
    singles = [
        detection_losses(
            RawOutputs(scores[i : i + 1], deltas[i : i + 1], log_probs[i : i + 1]),
            anchors,
            targets[i : i + 1],
        ).total()
        for i in range(4)
    ]
    assert batch.total().item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-5)


def test_total_weighs_the_global_loss_by_a_tenth():
    losses = Losses(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(10.0))
    assert losses.total().item() == 4.0


def test_focal_loss_follows_alpha_and_gamma():
    """One positive anchor of score .5, one negative of .2, worked by hand."""
    matches = Matches(
        positive=torch.tensor([[True, False]]),
        negative=torch.tensor([[False, True]]),
        box_index=torch.zeros(1, 2, dtype=torch.long),
        boxes_xyxy=torch.zeros(1, 1, 4),
    )
    loss = focal_loss(torch.tensor([[0.5, 0.2]]), matches, LossSettings(alpha=0.9, gamma=1.0))
    expected = -0.9 * 0.5 * math.log(0.5) - 0.1 * 0.2 * math.log(0.8)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_box_loss_follows_beta():
    anchors = torch.tensor([[0.0, 0.0, 32.0, 32.0]])
    matches = match_anchors(anchors, [anchors])
    deltas = torch.full((1, 1, 4), 0.5)  # where 0 would be right
    for beta, expected in ((1.0, 0.5 * 0.5**2), (0.2, 0.5 - 0.1), (0.0, 0.5)):
        loss = box_loss(deltas, anchors, matches, LossSettings(beta=beta))
        assert loss.item() == pytest.approx(expected)


def test_box_loss_by_overlap_is_of_the_decoded_boxes():
    """Half of the true box is found, at two of four anchors; the mean is over these two."""
    anchors = torch.tensor([[0.0, 0.0, 32.0, 32.0]] * 2 + [[500.0, 0.0, 532.0, 32.0]] * 2)
    matches = match_anchors(anchors, [anchors[:1]])
    deltas = torch.zeros(1, 4, 4, requires_grad=True)
    with torch.no_grad():
        deltas[0, 0] = torch.tensor([0.0, 0.0, math.log(0.5) / 0.2, 0.0])
    loss = box_loss(deltas, anchors, matches, LossSettings(box_loss="giou"))
    assert loss.item() == pytest.approx((0.5 + 0) / 2, rel=1e-6)
    loss.sum().backward()
    assert deltas.grad is not None
    assert deltas.grad[0, 0, 2] < 0  # a wider box is better
    assert not deltas.grad[0, 2:].any()


def test_matching_follows_its_limits():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 4.5], [0.0, 0.0, 10.0, 1.0]])
    box = [torch.tensor([[0.0, 0.0, 10.0, 10.0]])]  # overlaps them by 1, .45 and .1
    for positive_iou, negative_iou, positive, negative in (
        (0.5, 0.4, [True, False, False], [False, False, True]),
        (0.45, 0.4, [True, True, False], [False, False, True]),
        (0.5, 0.46, [True, False, False], [False, True, True]),
        (0.5, 0.1, [True, False, False], [False, False, False]),
    ):
        settings = LossSettings(positive_iou=positive_iou, negative_iou=negative_iou)
        matches = match_anchors(anchors, box, settings)
        assert (matches.positive[0].tolist(), matches.negative[0].tolist()) == (positive, negative)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.5}, {"gamma": 1.0}, {"box_loss": "giou"}, {"beta": 0.5}, {"box_weight": 2.0},
        {"global_weight": 0.2}, {"positive_iou": 0.7}, {"negative_iou": 0.2},
    ],
)  # fmt: skip
def test_every_setting_changes_the_sum(change):
    _, anchors, scores, deltas, boxes = golden_batch()
    log_probs = torch.full((4, 3), 1 / 3).log()
    targets = [Target(b, 1) for b in boxes]
    outputs = RawOutputs(scores, deltas, log_probs)
    plain, changed = (
        detection_losses(outputs, anchors, targets, settings=settings).total().item()
        for settings in (LossSettings(), LossSettings(**change))
    )
    assert changed != pytest.approx(plain, rel=1e-6)


def test_total_follows_the_weights():
    parts = (torch.tensor(1.0), torch.tensor(2.0), torch.tensor(10.0))
    assert Losses(*parts, box_weight=3.0, global_weight=0.5).total().item() == 1 + 3 * 2 + 0.5 * 10
