"""How many floating-point operations the networks take; two to a multiply-add."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from src.experiments.experiment import Experiment
from src.experiments.networks import build_model
from src.retinanet.anchors import count_anchors, make_anchors
from src.retinanet.losses import match_anchors
from src.structures import Batch

TRAINING_IN_FORWARDS = 3  # a backward pass takes two products for each one of the forward pass


def count_flops(experiment: Experiment) -> int:
    """Count the operations of one image's forward pass, the box head everywhere."""
    with torch.device("meta"):
        model = build_model(experiment).eval()
        image = torch.empty(1, 1, experiment.img_size, experiment.img_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return counter.get_total_flops()


def box_head_flops(experiment: Experiment, n_anchors: int) -> float:
    """Count the operations of the box head over one level."""
    n_per_position = experiment.anchor_shapes.n_per_position
    positions = n_anchors / n_per_position
    hidden = experiment.head_depth * experiment.pyramid_width**2
    output = experiment.pyramid_width * n_per_position * 4
    return 2 * 9 * positions * (hidden + output)


def batch_flops(experiment: Experiment, batch: Batch, *, skips: bool, trains: bool) -> float:
    """Count what a batch takes: a training step, or a forward pass that finds nothing.

    Args:
        skips: the box head runs only where a true box needs it.
    """
    total = float(len(batch.ids) * count_flops(experiment))
    if skips:
        size, levels, shapes = batch.image_size, experiment.pyramid_levels, experiment.anchor_shapes
        boxes = [target.boxes_xyxy for target in batch.targets]
        anchors = make_anchors(size, levels, shapes)
        positive = match_anchors(anchors, boxes, experiment.loss).positive
        counts = [count_anchors(size, level, shapes) for level in levels]
        for part, n_anchors in zip(positive.split(counts, dim=1), counts, strict=True):
            n_needing = int(part.any(dim=1).sum()) if trains else 0
            total -= (len(batch.ids) - n_needing) * box_head_flops(experiment, n_anchors)
    return total * (TRAINING_IN_FORWARDS if trains else 1)
