"""How cost grows: with the side of the images, the batch, the images of a fold, their boxes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from scripts.benchmarks.infer import make_inference
from scripts.benchmarks.measuring import Row, describe_machine, report_tables, time_in_turn
from scripts.benchmarks.networks import EMPTY_SHARE, Way, make_batch
from scripts.benchmarks.train import make_step
from src.experiments.table import get_experiment
from src.prediction.postprocess import suppress_at
from src.prediction.predictions import Predictions, optional_arrays
from src.prediction.presets import NMS_IOU
from src.prediction.provenance import Provenance
from src.retinanet.acceleration import (
    Acceleration,
    choose_device,
    choose_precision,
    set_global_switches,
)
from src.scoring.grid import sweep_epoch

SIZE = 512  # of invented predictions, pixels
FEW_BOXES = 8  # candidates of an image, where the images grow in number
FEW_IMAGES = 200  # where the candidates grow in number
N_CLUSTERS = 4  # of an image's candidates
JITTER = 20.0  # pixels, standard deviation of the candidates of a cluster

Work = Callable[[], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="resnet18_256_scratch", help="experiment")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 on "
                        "GPUs that have it")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--batch-size", type=int, default=2, help="while the side grows")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 384, 512, 768])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 2000, 4000, 8000])
    parser.add_argument("--boxes", type=int, nargs="+", default=[10, 30, 100, 300])
    parser.add_argument("--runs", type=int, default=3, help="timed runs; the median counts")
    parser.add_argument("--json", type=Path, help="write the numbers")


def run(arguments: argparse.Namespace) -> None:
    """Measure along each axis."""
    torch.set_num_threads(arguments.threads)
    experiment = get_experiment(arguments.model)
    device = choose_device(arguments.device)
    if device.type == "cuda":
        set_global_switches(deterministic=False)
    acceleration = Acceleration(
        device=device, precision=choose_precision(arguments.precision, device)
    )
    way = Way("", acceleration, keeps_memory=device.type == "cpu")

    def network_works(side: int, n_images: int) -> dict[str, Work]:
        sized, batch = replace(experiment, img_size=side), make_batch(side, n_images)
        return {
            "training step": make_step(way, sized, batch),
            "inference": make_inference(way, sized, batch),
        }

    def score_works(n_images: int, n_boxes: int) -> dict[str, Work]:
        found = invent_predictions(n_images, n_boxes)
        return {
            "suppression": lambda: suppress_at(found.candidates(), [NMS_IOU]),
            "suppression and score": lambda: sweep_epoch(found),
        }

    axes: dict[str, tuple[Sequence[int], Callable[[int], dict[str, Work]]]] = {
        "side px": (arguments.sides, lambda n: network_works(n, arguments.batch_size)),
        "batch": (arguments.batches, lambda n: network_works(experiment.img_size, n)),
        "images": (arguments.images, lambda n: score_works(n, FEW_BOXES)),
        "boxes an image": (arguments.boxes, lambda n: score_works(FEW_IMAGES, n)),
    }
    tables = {axis: grow(axis, *of_axis, n_runs=arguments.runs) for axis, of_axis in axes.items()}
    print(
        f"{arguments.model} in {acceleration.precision}; batches of {arguments.batch_size} along "
        f"the side, {experiment.img_size} px along the batch; {FEW_BOXES} boxes an image along the "
        f"images, {FEW_IMAGES} images along the boxes\n"
    )
    report_tables(tables, describe_machine(arguments.device, arguments.threads), arguments.json)


def grow(
    axis: str, values: Sequence[int], make: Callable[[int], dict[str, Work]], *, n_runs: int
) -> list[Row]:
    """Time some works at each value of an axis, in turn.

    Returns:
        A row for each work and value; the exponent is that of the growth since the first value.
    """
    works = [(name, value, work) for value in values for name, work in make(value).items()]
    timings = time_in_turn(
        [work for _, _, work in works],
        n_runs=n_runs,
        synchronise=torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None,
    )
    first: dict[str, tuple[int, float]] = {}
    rows: list[Row] = []
    for (name, value, _), timing in zip(works, timings, strict=True):
        start, seconds = first.setdefault(name, (value, timing.median))
        ratio = timing.median / seconds
        rows.append(
            {
                "what": name,
                axis: value,
                "median ms": timing.median * 1e3,
                "fastest ms": timing.fastest * 1e3,
                "slowest ms": timing.slowest * 1e3,
                "times the first": ratio,
                "exponent": math.log(ratio) / math.log(value / start) if value != start else "",
            }
        )
    return sorted(rows, key=lambda row: list(first).index(row["what"]))


def invent_predictions(n_images: int, n_boxes: int) -> Predictions:
    """Make up candidates in clusters, as networks find them; images have a box as the challenge's.

    Args:
        n_boxes: candidates of each image.
    """
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, SIZE / 2, (n_images, N_CLUSTERS, 2))
    sides = rng.uniform(SIZE / 10, SIZE / 3, (n_images, N_CLUSTERS, 2))
    clusters = np.concatenate([corners, corners + sides], axis=-1)  # (I, clusters, 4)
    boxes = clusters[:, np.arange(n_boxes) % N_CLUSTERS]
    boxes = boxes + rng.normal(0, JITTER, boxes.shape)
    n_true = (rng.random(n_images) >= EMPTY_SHARE).astype(np.int64)
    return Predictions(
        ids=np.arange(n_images).astype(str),
        image_sizes=np.full((n_images, 2), 2 * SIZE),
        class_probs=np.full((n_images, 3), 1 / 3, dtype=np.float32),
        offsets=np.arange(n_images + 1) * n_boxes,
        boxes_xyxy=boxes.reshape(-1, 4).astype(np.float32),
        scores=-np.sort(-rng.random((n_images, n_boxes))).ravel().astype(np.float32),
        **optional_arrays(n_images),
        true_offsets=np.concatenate([[0], np.cumsum(n_true)]),
        true_boxes_xyxy=clusters[n_true > 0, 0].astype(np.float32),
        true_categories=np.where(n_true > 0, 2, 1),
        provenance=Provenance(img_size=SIZE),
    )
