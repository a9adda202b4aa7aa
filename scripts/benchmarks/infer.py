"""Inference: the plain full pass, and each means that makes it faster on top of the last.

The network is untrained and finds nothing, which is the best case for leaving out the box head;
most real images are of that kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from scripts.benchmarks import networks, peers
from scripts.benchmarks.networks import Way
from src.experiments.experiment import Experiment
from src.retinanet.candidates import find_candidates, find_weak
from src.retinanet.settings import DEFAULT_WEAK, NO_WEAK
from src.structures import Batch, Detections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    networks.add_arguments(parser)
    parser.add_argument("--weak-candidates", action="store_true",
                        help="time the last way with weaker boxes as well")  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Time batches from pixels to candidates."""
    networks.measure_ways(arguments, "infer", make_inference)


def make_inference(way: Way, experiment: Experiment, batch: Batch) -> Callable[[], object]:
    """Return a function that finds the candidates of the batch."""
    if way.is_peer:
        return peers.make_inference(way.acceleration, experiment, batch)
    model = networks.make_network(way, experiment, for_training=False)
    weak = DEFAULT_WEAK if way.finds_weak else NO_WEAK
    min_score = weak.least_score(model.limits) if way.skips else None

    def infer() -> list[list[Detections]]:
        networks.set_memory(way)
        images = batch.to(way.acceleration.device).images
        with torch.inference_mode():
            with way.acceleration.arithmetic():
                outputs = model(images, min_score=min_score)
            place = outputs, model.anchors(images), batch.image_size
            found = find_candidates(*place, model.limits)
            return [found, find_weak(*place, found, model.limits, weak)]

    return infer
