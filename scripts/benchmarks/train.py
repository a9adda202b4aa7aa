"""A training step: the plain full pass, and each means that makes it faster on top of the last."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from scripts.benchmarks import networks, peers
from scripts.benchmarks.networks import Way
from src.experiments.experiment import Experiment
from src.structures import Batch
from src.training.epoch import train_epoch
from src.training.optimizer import Optimization, make_optimizer
from src.training.progress import Progress
from src.training.step import Learner
from tests import oracles

add_arguments = networks.add_arguments


def run(arguments: argparse.Namespace) -> None:
    """Time steps on a batch with the challenge's share of images without boxes."""
    networks.measure_ways(arguments, "train", make_step)


def make_step(way: Way, experiment: Experiment, batch: Batch) -> Callable[[], object]:
    """Return a function that does one step on the batch."""
    if way.is_peer:
        return peers.make_step(way.acceleration, experiment, batch)
    model = networks.make_network(way, experiment, for_training=True)
    if not way.skips:
        plain_optimizer = make_optimizer(model, experiment)

        def plain_step() -> None:
            networks.set_memory(way)
            on_device = batch.to(way.acceleration.device)
            oracles.training_step(model, plain_optimizer, on_device, experiment.clip_norm)

        return plain_step

    optimization = Optimization(
        model, experiment, steps_per_epoch=1, scales_loss=way.acceleration.precision == "fp16"
    )
    learner = Learner(
        model=model,
        optimization=optimization,
        acceleration=way.acceleration,
        loss=experiment.loss,
    )

    def step() -> None:
        networks.set_memory(way)
        train_epoch(learner, [batch], Progress(epoch=0), shows_progress=False)

    return step
