"""A whole epoch as a user has it: loader, training, validation, prediction, score.

The loops read a batch's numbers off the device before they ask for the next batch: while they wait
for that, the device has nothing to do either.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

import config
from scripts.benchmarks.measuring import Row, describe_machine, report
from src.datasets.loaders import LabelledImages, load_labelled_images
from src.experiments.runs import Run
from src.experiments.table import get_experiment
from src.prediction.inference import predict
from src.retinanet.acceleration import (
    Acceleration,
    choose_device,
    choose_precision,
    set_global_switches,
)
from src.structures import Batch
from src.training.epoch import train_epoch, validate
from src.training.loop import Training
from src.training.options import TrainingOptions

T = TypeVar("T")
VALIDATION_SHARE = 3  # training images to one for validation: four folds


class WatchedLoader:
    """Batches of a loader, and how long they were waited for.

    Attributes:
        waited: seconds, the start of worker processes included.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = batches
        self.waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        start = time.perf_counter()
        remaining = iter(self.batches)
        while (batch := next(remaining, None)) is not None:
            self.waited += time.perf_counter() - start
            yield batch
            start = time.perf_counter()
        self.waited += time.perf_counter() - start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    parser.add_argument("--output-dir", type=Path, default=config.OUTPUT_DIR, help="of the cache")
    parser.add_argument("--model", default="demo", help="experiment")
    parser.add_argument("--batch-size", type=int, help="images; default: the experiment's")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 on "
                        "GPUs that have it")  # fmt: skip
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--no-search", action="store_true",
                        help="cuDNN guesses its algorithms instead of trying them")  # fmt: skip
    parser.add_argument("--workers", type=int, help="processes of a loader; default: its choice")
    parser.add_argument("--images", type=int, default=128, help="for training, repeated where "
                        "fold 0 has fewer; a third as many for validation")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=2, help="the first one starts everything")
    parser.add_argument("--json", type=Path, help="write the numbers")


def run(arguments: argparse.Namespace) -> None:
    """Go through the epochs with images from DICOM files, then with images from the cache."""
    experiment = get_experiment(arguments.model)
    if arguments.batch_size is not None:
        experiment = replace(experiment, batch_size=arguments.batch_size)
    device = choose_device(arguments.device)
    set_global_switches(deterministic=False)
    torch.backends.cudnn.benchmark = not arguments.no_search
    precision = choose_precision(arguments.precision, device)
    options = TrainingOptions(
        acceleration=Acceleration(device=device, precision=precision, compiles=arguments.compile),
        seed=0,
        n_workers=arguments.workers,
    )
    rows = []
    for name, folder in (("DICOM", None), ("cache", arguments.output_dir / "cache")):
        images = load_labelled_images(arguments.data_dir, 0, cache_dir=folder)
        with tempfile.TemporaryDirectory() as output_dir:
            place = Run(arguments.model, 0, "", Path(output_dir))
            training = Training(place, experiment, repeat(images, arguments.images), options)
            print(training.describe(), flush=True)
            for epoch in range(arguments.epochs):
                for row in time_epoch(training, epoch):
                    rows.append({"images from": name, "epoch": epoch} | row)
    print()
    report(rows, describe_machine(str(device), torch.get_num_threads()), arguments.json)


def repeat(images: LabelledImages, n_train: int) -> LabelledImages:
    """Take so many training images, some twice if need be, and a third as many for validation."""

    def take(records: Sequence[T], n: int) -> list[T]:
        return [records[i % len(records)] for i in range(n)]

    n_valid = max(1, n_train // VALIDATION_SHARE)
    return replace(images, train=take(images.train, n_train), valid=take(images.valid, n_valid))


def time_epoch(training: Training, epoch: int) -> Iterator[Row]:
    """Train, validate, predict and score; yield a row for each."""
    from src.prediction.provenance import trained_provenance
    from src.scoring.grid import sweep_epoch
    from src.training.epoch import Progress

    acceleration = training.options.acceleration
    provenance = trained_provenance(training.files.run, training.experiment, epoch)
    training.sampler.epoch = epoch
    watched = WatchedLoader(training.train_loader)
    progress = Progress(epoch=epoch)
    n_batches = training.sampler.n_batches
    _, seconds = timed(
        lambda: train_epoch(training.learner, watched, progress, n_batches=n_batches)
    )
    yield _row("training", progress.running.n_images, seconds, watched.waited)

    watched = WatchedLoader(training.valid_loader)
    (_, found), seconds = timed(
        lambda: validate(
            training.model,
            watched,
            acceleration=acceleration,
            provenance=provenance,
            loss=training.experiment.loss,
        )
    )
    yield _row("validation", len(found), seconds, watched.waited)

    network = copy.deepcopy(training.model)
    acceleration.place_for_inference(network)
    watched = WatchedLoader(training.valid_loader)
    found, seconds = timed(
        lambda: predict(network, watched, acceleration=acceleration, provenance=provenance)
    )
    yield _row("prediction", len(found), seconds, watched.waited)

    _, seconds = timed(lambda: sweep_epoch(found))
    yield _row("score", len(found), seconds, 0.0)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what some work gives and its seconds, the device's own included."""
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def _row(stage: str, n_images: int, seconds: float, waited: float) -> Row:
    return {
        "stage": stage,
        "images": n_images,
        "seconds": seconds,
        "images a second": n_images / seconds,
        "waited for data s": waited,
        "waited for data %": 100 * waited / seconds,
    }
