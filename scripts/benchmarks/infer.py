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
from src.retinanet.candidates import find_candidates
from src.structures import Batch, Detections

add_arguments = networks.add_arguments


def run(arguments: argparse.Namespace) -> None:
    """Time batches from pixels to candidates."""
    networks.measure_ways(arguments, "infer", make_inference)


def make_inference(way: Way, experiment: Experiment, batch: Batch) -> Callable[[], object]:
    """Return a function that finds the candidates of the batch."""
    if way.is_peer:
        return peers.make_inference(way.acceleration, experiment, batch)
    model = networks.make_network(way, experiment, for_training=False)
    min_score = model.limits.min_score if way.skips else None

    def infer() -> list[Detections]:
        networks.set_memory(way)
        images = batch.to(way.acceleration.device).images
        with torch.inference_mode():
            with way.acceleration.arithmetic():
                outputs = model(images, min_score=min_score)
            anchors = model.anchors(images)
            return find_candidates(outputs, anchors, batch.image_size, model.limits)

    return infer
