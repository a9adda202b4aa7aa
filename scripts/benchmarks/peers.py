"""torchvision's RetinaNet, as its users run it, beside this project's networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from scripts.benchmarks.arithmetic import TRAINING_IN_FORWARDS
from src.experiments.experiment import Experiment
from src.retinanet.acceleration import Acceleration, move
from src.structures import Batch

NAME = "torchvision retinanet_resnet50_fpn"
N_CLASSES = 2  # background and opacity


def build_peer(img_size: int, encoder: str = "resnet50") -> RetinaNet:
    """Build the untrained network for square images; all of its layers are trained."""
    sizes = {"min_size": img_size, "max_size": img_size}
    if encoder == "resnet50":
        return retinanet_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=N_CLASSES, **sizes
        )
    backbone = resnet_fpn_backbone(  # as retinanet_resnet50_fpn makes its own
        backbone_name=encoder,
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return RetinaNet(backbone, N_CLASSES, **sizes)


def make_step(
    acceleration: Acceleration, experiment: Experiment, batch: Batch
) -> Callable[[], object]:
    """Return a function that does one training step on a batch: Adam, the gradient clipped."""
    model = build_peer(experiment.img_size).train()
    move(model, acceleration.device)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=experiment.learning_rate,
        fused=acceleration.device.type == "cuda",
    )
    scaler = torch.amp.GradScaler(
        acceleration.device.type, enabled=acceleration.precision == "fp16"
    )
    return lambda: train_step(model, optimizer, acceleration, experiment.clip_norm, batch, scaler)


def train_step(
    model: RetinaNet,
    optimizer: torch.optim.Optimizer,
    acceleration: Acceleration,
    clip_norm: float,
    batch: Batch,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Move a network's weights by one batch."""
    device = acceleration.device
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    optimizer.zero_grad(set_to_none=True)
    with acceleration.arithmetic():
        losses = model(images_of(batch, device), _targets(batch, device))
    scaler.scale(sum(losses.values())).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    scaler.step(optimizer)
    scaler.update()


def make_inference(
    acceleration: Acceleration, experiment: Experiment, batch: Batch
) -> Callable[[], object]:
    """Return a function that finds the boxes of the batch."""
    model = build_peer(experiment.img_size).eval()
    move(model, acceleration.device)

    def infer() -> object:
        with torch.inference_mode(), acceleration.arithmetic():
            return model(images_of(batch, acceleration.device))

    return infer


def batch_flops(experiment: Experiment, n_images: int, *, trains: bool) -> float:
    """Count the operations of a batch: of the network, without its resizing and decoding."""
    with torch.device("meta"):
        model = build_peer(experiment.img_size).eval()
        image = torch.empty(1, 3, experiment.img_size, experiment.img_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.head(list(model.backbone(image).values()))
    return float(counter.get_total_flops() * n_images * (TRAINING_IN_FORWARDS if trains else 1))


def images_of(batch: Batch, device: torch.device) -> list[Tensor]:
    """Return a batch's images as torchvision's networks take them."""
    return list(batch.to(device).images.expand(-1, 3, -1, -1))


def _targets(batch: Batch, device: torch.device) -> list[dict[str, Any]]:
    return [
        {
            "boxes": target.boxes_xyxy.to(device),
            "labels": torch.ones(len(target.boxes_xyxy), dtype=torch.int64, device=device),
        }
        for target in batch.targets
    ]
