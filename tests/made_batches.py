"""Batches of random images, and a small network that finds something in them."""

import torch
from torch import nn

from src.prediction.provenance import Provenance
from src.retinanet.acceleration import Acceleration
from src.structures import Batch, Target
from tests.retinanet.test_model import tiny_model

CPU = torch.device("cpu")
ON_CPU = Acceleration(device=CPU)
PROVENANCE = Provenance(img_size=192, model="tiny")


def make_batches(sizes, seed=0):
    """Batches of so many random images; every second image has a box."""
    generator, batches, n = torch.Generator().manual_seed(seed), [], 0
    for size in sizes:
        targets, ids = [], []
        for _ in range(size):
            box = torch.tensor([[30.0, 40.0, 100.0, 120.0 + n]])
            targets.append(Target(box, 2) if n % 2 == 0 else Target(torch.zeros(0, 4), n % 4 // 2))
            ids.append(f"patient-{n}")
            n += 1
        images = torch.rand(size, 1, 192, 192, generator=generator)
        file_sizes = tuple((1024, 1024 + i) for i in range(size))
        batches.append(Batch(images, tuple(targets), tuple(ids), file_sizes))
    return batches


def model_that_finds():
    """A tiny network whose scores differ and pass the candidates' limit here and there."""
    model = tiny_model(levels=(4, 5, 6, 7))
    torch.manual_seed(1)
    nn.init.normal_(model.class_head.output.weight, std=0.5)
    nn.init.constant_(model.class_head.output.bias, -2.0)
    nn.init.normal_(model.box_head.output.weight, std=0.1)
    return model
