import numpy as np
import pytest
import torch

from src.retinanet.anchors import make_anchors
from src.retinanet.losses import box_loss, detection_losses, focal_loss, match_anchors
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
