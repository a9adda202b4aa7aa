"""What networks have learned after the same processor seconds on the same images."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.models.detection import RetinaNet

import config
from scripts.benchmarks import peers
from scripts.benchmarks.measuring import Row, describe_machine, report
from src.datasets.loaders import LabelledImages, load_labelled_images
from src.experiments.runs import Run
from src.experiments.table import SMALL, get_experiment
from src.metric import FloatArray, map_iou
from src.prediction.presets import NMS_IOU
from src.prediction.provenance import trained_provenance
from src.retinanet.acceleration import Acceleration, move
from src.retinanet.encoders.weights import find_weights
from src.scoring.grid import sweep_epoch
from src.structures import Batch
from src.system.command_line import below, natural
from src.training.epoch import train_epoch, validate
from src.training.loop import Training
from src.training.options import TrainingOptions
from src.training.progress import Progress

PEERS = ("resnet18", "resnet50")  # encoders of torchvision's RetinaNet
THRESHOLDS = np.arange(1, 20) / 20  # of a peer's scores
N_TIMED = 3  # steps, after one

Steps = Callable[[Iterable[Batch]], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    parser.add_argument("--fold", type=below(4), default=0, help="validation fold")
    parser.add_argument("--model", nargs="+", choices=SMALL, default=["lite0_256"],
                        help="experiments; peers learn from the first one's samples")  # fmt: skip
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS,
                        help="encoders of torchvision's RetinaNet, drawn at random")  # fmt: skip
    parser.add_argument("--seconds", type=natural, default=1000, help="of the processor, for each")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers")


def run(arguments: argparse.Namespace) -> None:
    """Train one after the other, each by one cycle of its rate that fills the seconds; score."""
    images = load_labelled_images(arguments.data_dir, arguments.fold)
    networks = [(name, None) for name in arguments.model]
    networks += [(arguments.model[0], peer) for peer in arguments.peers]
    rows = []
    for model, peer in networks:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_learn(model, peer, images, arguments, Path(folder)))
        print(rows[-1], flush=True)
    report(rows, describe_machine("cpu", torch.get_num_threads()), arguments.json)


def _learn(
    model: str, peer: str | None, images: LabelledImages, arguments: argparse.Namespace, out: Path
) -> Row:
    """Find out how many epochs fill the seconds, train so many, and score the validation fold."""

    def begin(n_epochs: int) -> tuple[Training, Steps, Callable[[], float]]:
        training = _make_training(model, n_epochs, images, arguments, out)
        return training, *(_our_ways(training) if peer is None else _peer_ways(training, peer))

    training, learn, _ = begin(N_TIMED + 1)
    learn([next(iter(training.train_loader))])
    start = time.process_time()
    for _ in range(N_TIMED):
        learn([next(iter(training.train_loader))])
    step = (time.process_time() - start) / N_TIMED
    n_epochs = max(1, round(arguments.seconds / (step * training.sampler.n_batches)))

    training, learn, score = begin(n_epochs)
    start = time.process_time()
    for epoch in range(n_epochs):
        training.sampler.epoch = epoch
        learn(training.train_loader)
    seconds = time.process_time() - start
    return {
        "network": f"torchvision RetinaNet {peer}" if peer else model,
        "side px": training.experiment.img_size,
        "weights": "random" if peer or not training.experiment.pretrained else "ImageNet",
        "epochs": n_epochs,
        "processor s": seconds,
        "score": score(),
    }


def _make_training(
    model: str, n_epochs: int, images: LabelledImages, arguments: argparse.Namespace, out: Path
) -> Training:
    experiment = get_experiment(model, n_epochs=n_epochs)
    weights = None
    if experiment.pretrained:
        weights = find_weights(experiment.encoder, weights_dir=config.WEIGHTS_DIR)
    options = TrainingOptions(
        acceleration=Acceleration(device=torch.device("cpu"), precision=arguments.precision),
        seed=arguments.seed,
        n_workers=0,  # their seconds would be another process's
        encoder_weights=weights,
    )
    return Training(Run(model, arguments.fold, "", out), experiment, images, options)


def _our_ways(training: Training) -> tuple[Steps, Callable[[], float]]:
    """Return how the training's own network learns from batches, and how it is scored."""
    provenance = trained_provenance(training.files.run, training.experiment, 0)
    acceleration = training.options.acceleration

    def learn(batches: Iterable[Batch]) -> None:
        train_epoch(training.learner, batches, Progress(epoch=0), shows_progress=False)

    def score() -> float:
        with training.learner.optimization.averaged():
            _, found = validate(
                training.model,
                training.valid_loader,
                acceleration=acceleration,
                provenance=provenance,
            )
        return float(np.nanmax(sweep_epoch(found)))

    return learn, score


def _peer_ways(training: Training, encoder: str) -> tuple[Steps, Callable[[], float]]:
    """Return how torchvision's network learns from the training's batches, and how it is scored."""
    experiment, acceleration = training.experiment, training.options.acceleration
    torch.manual_seed(training.options.seed)
    network = peers.build_peer(experiment.img_size, encoder).train()
    move(network, acceleration.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=experiment.learning_rate)
    n_steps = experiment.n_epochs * training.sampler.n_batches
    schedule = OneCycleLR(
        optimizer, experiment.learning_rate, total_steps=n_steps + 1, cycle_momentum=False
    )

    def learn(batches: Iterable[Batch]) -> None:
        for batch in batches:
            peers.train_step(network, optimizer, acceleration, experiment.clip_norm, batch)
            schedule.step()

    return learn, lambda: _score_peer(network, training.valid_loader, acceleration)


def _score_peer(network: RetinaNet, batches: Iterable[Batch], acceleration: Acceleration) -> float:
    """Return the challenge's score at the best threshold."""
    network.eval()
    network.nms_thresh, network.score_thresh = NMS_IOU, float(THRESHOLDS[0])
    scores = []
    for batch in batches:
        with torch.inference_mode(), acceleration.arithmetic():
            found = network(peers.images_of(batch, acceleration.device))
        for target, one in zip(batch.targets, found, strict=True):
            boxes, true = _as_xywh(one["boxes"]), _as_xywh(target.boxes_xyxy)
            values = one["scores"].float().numpy()
            kept = [values > threshold for threshold in THRESHOLDS]
            each = [map_iou(true, boxes[which], values[which]) for which in kept]
            scores.append([np.nan if score is None else score for score in each])
    return float(np.nanmean(scores, axis=0).max())


def _as_xywh(boxes_xyxy: torch.Tensor) -> FloatArray:
    boxes: FloatArray = boxes_xyxy.double().numpy().copy()
    boxes[:, 2:] -= boxes[:, :2]
    return boxes
