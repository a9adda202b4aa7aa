"""Batch norm without pretrained weights: the option matters (facts.md, behaviour 1)."""

import dataclasses

import pytest
import torch

from src.experiments.networks import build_model
from src.experiments.table import EXPERIMENTS
from src.retinanet.losses import detection_losses
from src.structures import Target
from src.training.optimizer import make_optimizer
from src.training.step import StepKey, seed_step

SIZE = 192


def two_images():
    """A bright rectangle on noise, and noise alone."""
    images = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.3
    images[0, 0, 60:140, 40:90] += 0.6
    box = torch.tensor([[40.0, 60, 90, 140]])
    return images, [Target(box, 2), Target(torch.zeros(0, 4), 1)]


def loss_after_steps(n_steps, **changes):
    info = dataclasses.replace(EXPERIMENTS["demo"], pyramid_width=16, head_depth=1, **changes)
    seed_step(StepKey(0, 0, 0))
    model = build_model(info)
    optimizer = make_optimizer(model, info)
    images, targets = two_images()
    for _ in range(n_steps):
        model.train()
        losses = detection_losses(model(images), model.anchors(images), targets)
        optimizer.zero_grad()
        losses.total().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), info.clip_norm)
        optimizer.step()
    return losses.total().item()


def test_training_batch_norm_is_the_default_exactly_without_pretrained_weights():
    for name, info in EXPERIMENTS.items():
        if info.batch_norm == "auto":
            assert info.trains_batch_norm == (not info.pretrained), name
    frozen = dataclasses.replace(EXPERIMENTS["demo"], batch_norm="frozen")
    trained = dataclasses.replace(EXPERIMENTS["resnet101_512"], batch_norm="train")
    assert not frozen.trains_batch_norm
    assert trained.trains_batch_norm


@pytest.mark.parametrize("batch_norm", ["auto", "frozen"])
def test_the_network_follows_the_option(batch_norm):
    info = dataclasses.replace(EXPERIMENTS["resnet18_256_scratch"], batch_norm=batch_norm)
    model = build_model(info).train()
    layers = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(layers) == 20
    assert all(layer.training == (batch_norm == "auto") for layer in layers)


def test_a_net_from_scratch_learns_faster_with_trained_batch_norm():
    """From the same weights, in as many steps; frozen statistics of 0 and 1 normalise nothing."""
    trained = loss_after_steps(10)
    frozen = loss_after_steps(10, batch_norm="frozen")
    assert trained < 0.6 * frozen
