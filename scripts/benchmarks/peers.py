"""torchvision's RetinaNet on ResNet-50, as its users run it, beside this project's networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn

from scripts.benchmarks.arithmetic import TRAINING_IN_FORWARDS
from src.experiments.experiment import Experiment
from src.retinanet.acceleration import Acceleration, move
from src.structures import Batch

NAME = "torchvision retinanet_resnet50_fpn"
N_CLASSES = 2  # background and opacity


def build_peer(img_size: int) -> RetinaNet:
    """Build the untrained network for square images; all of its layers are trained."""
    return retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=N_CLASSES,
        min_size=img_size,
        max_size=img_size,
    )


def make_step(
    acceleration: Acceleration, experiment: Experiment, batch: Batch
) -> Callable[[], object]:
    """Return a function that does one training step: Adam, the gradient clipped."""
    device = acceleration.device
    model = build_peer(experiment.img_size).train()
    move(model, device)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=experiment.learning_rate, fused=device.type == "cuda"
    )
    scaler = torch.amp.GradScaler(device.type, enabled=acceleration.precision == "fp16")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with acceleration.arithmetic():
            losses = model(_images(batch, device), _targets(batch, device))
        scaler.scale(sum(losses.values())).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), experiment.clip_norm)
        scaler.step(optimizer)
        scaler.update()

    return step


def make_inference(
    acceleration: Acceleration, experiment: Experiment, batch: Batch
) -> Callable[[], object]:
    """Return a function that finds the boxes of the batch."""
    model = build_peer(experiment.img_size).eval()
    move(model, acceleration.device)

    def infer() -> object:
        with torch.inference_mode(), acceleration.arithmetic():
            return model(_images(batch, acceleration.device))

    return infer


def batch_flops(experiment: Experiment, n_images: int, *, trains: bool) -> float:
    """Count the operations of a batch: of the network, without its resizing and decoding."""
    with torch.device("meta"):
        model = build_peer(experiment.img_size).eval()
        image = torch.empty(1, 3, experiment.img_size, experiment.img_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.head(list(model.backbone(image).values()))
    return float(counter.get_total_flops() * n_images * (TRAINING_IN_FORWARDS if trains else 1))


def _images(batch: Batch, device: torch.device) -> list[Tensor]:
    return list(batch.to(device).images.expand(-1, 3, -1, -1))


def _targets(batch: Batch, device: torch.device) -> list[dict[str, Any]]:
    return [
        {
            "boxes": target.boxes_xyxy.to(device),
            "labels": torch.ones(len(target.boxes_xyxy), dtype=torch.int64, device=device),
        }
        for target in batch.targets
    ]
