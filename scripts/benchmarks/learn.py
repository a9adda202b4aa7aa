"""What networks have learned after the same processor seconds on the same images."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.models.detection import RetinaNet

import config
from scripts.benchmarks import peers
from scripts.benchmarks.measuring import Row, describe_machine, report
from src.actions.resolve import change_experiment
from src.datasets.loaders import LabelledImages, load_labelled_images
from src.experiments.changes import read_changes
from src.experiments.experiment import Experiment
from src.experiments.runs import Run
from src.experiments.table import SMALL, get_experiment
from src.metric import FloatArray, IntArray
from src.prediction.collector import PredictionCollector
from src.prediction.predictions import Predictions
from src.prediction.presets import NMS_IOU, Postprocess
from src.prediction.provenance import Provenance, trained_provenance
from src.retinanet.acceleration import Acceleration, move
from src.retinanet.encoders.weights import find_weights
from src.retinanet.settings import DEFAULT_WEAK
from src.scoring.average_precision import average_precision
from src.scoring.bootstrap import draw_patients, percentile_interval, ratio
from src.scoring.grid import sweep_pooled
from src.scoring.honest import honest_score
from src.scoring.ranked_boxes import DrawnBoxes, rank_boxes
from src.scoring.scored_images import scored_predictions
from src.structures import CLASS_NAMES, Batch, Detections
from src.system.command_line import below, natural
from src.training.epoch import train_epoch, validate
from src.training.loop import Training
from src.training.options import TrainingOptions
from src.training.progress import Progress

PEERS = ("resnet18", "resnet50")  # encoders of torchvision's RetinaNet
N_DRAWS = 1000
N_TIMED = 3  # steps, after one

Steps = Callable[[Iterable[Batch]], object]


@dataclass(frozen=True)
class Network:
    """What is trained.

    Attributes:
        name: in the table.
        experiment: of this project; a peer learns from its samples, at its rate.
        peer: an encoder of torchvision's RetinaNet; None trains the experiment's own network.
    """

    name: str
    experiment: Experiment
    peer: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    parser.add_argument("--fold", type=below(4), default=0, help="validation fold")
    parser.add_argument("--model", nargs="+", choices=SMALL, default=["lite0_256"],
                        help="experiments; peers learn from the first one's samples")  # fmt: skip
    parser.add_argument("--set", nargs="+", action="append", metavar="FIELD=VALUE", default=[],
                        help="train each experiment changed as well; repeatable")  # fmt: skip
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS,
                        help="encoders of torchvision's RetinaNet, drawn at random")  # fmt: skip
    parser.add_argument("--seconds", type=natural, default=1000, help="of the processor, for each")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seeds", type=natural, nargs="+", default=[0])
    parser.add_argument("--json", type=Path, help="write the numbers")


def run(arguments: argparse.Namespace) -> None:
    """Train one after the other, each by one cycle of its rate that fills the seconds; score."""
    networks = list(_list_networks(arguments))
    images = load_labelled_images(arguments.data_dir, arguments.fold)
    rows = []
    for network in networks:
        found, n_epochs, seconds = list[dict[str, FloatArray]](), 0, list[float]()
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as folder:
                predictions, n_epochs, spent = _learn(
                    network, seed, images, arguments, Path(folder)
                )
            found.append(_numbers(predictions))
            seconds.append(spent)
            values = ", ".join(f"{name} {draws[0]:.3f}" for name, draws in found[-1].items())
            print(f"{network.name}, seed {seed}: {values}", flush=True)
        rows.append(
            {
                "network": network.name,
                "side px": network.experiment.img_size,
                "weights": _weights_of(network),
                "epochs": n_epochs,
                "processor s": float(np.mean(seconds)),
                **_summarise(found),
            }
        )
    report(rows, describe_machine("cpu", torch.get_num_threads()), arguments.json)


def _list_networks(arguments: argparse.Namespace) -> Iterator[Network]:
    for model in arguments.model:
        experiment = get_experiment(model)
        yield Network(model, experiment)
        for words in arguments.set:
            changed = change_experiment(experiment, read_changes(words))
            yield Network(f"{model} {' '.join(words)}", changed)
    first = get_experiment(arguments.model[0])
    for peer in arguments.peers:
        yield Network(f"torchvision RetinaNet {peer}", first, peer)


def _weights_of(network: Network) -> str:
    pretrained = False if network.peer else network.experiment.pretrained
    return pretrained if isinstance(pretrained, str) else "ImageNet" if pretrained else "random"


def _numbers(predictions: Predictions) -> dict[str, FloatArray]:
    """Return each number, (1 + draws,): of the images themselves, then of draws of their patients.

    `score` is the challenge's, each part of the images at the threshold that is best on the others.
    """
    return {"score": _score_number(predictions), "AP .50": _ap_number(predictions)}


def _summarise(found: list[dict[str, FloatArray]]) -> Row:
    """Return the mean of each number over the seeds, its interval, and the seeds' own values."""
    row: Row = {}
    for name in found[0]:
        values = np.stack([numbers[name] for numbers in found])  # (seeds, 1 + draws)
        low, high = percentile_interval(values[:, 1:].mean(axis=0))
        row[name] = float(values[:, 0].mean())
        row[f"{name}, 95 %"] = f"{low:.3f} to {high:.3f}"
        row[f"{name}, by seed"] = " ".join(f"{value:.3f}" for value in values[:, 0])
    return row


def _score_number(predictions: Predictions) -> FloatArray:
    def load(_: object, __: object) -> Predictions:
        return predictions

    sweep = sweep_pooled([Path()], [0], load=load)
    honest = honest_score([Path()], sweep, load=load)
    counted = ~np.isnan(honest.image_scores)
    weights = _draws(honest.patients)
    return ratio(weights @ np.where(counted, honest.image_scores, 0), weights @ counted)


def _ap_number(predictions: Predictions) -> FloatArray:
    postprocess = Postprocess(gate="score", nms=NMS_IOU, threshold=0.0)
    ranked = rank_boxes(scored_predictions(predictions, postprocess))
    return average_precision(DrawnBoxes(ranked, _draws(predictions.patients)), 0.5)


def _draws(patients: IntArray) -> IntArray:
    ones = np.ones((1, len(patients)), dtype=np.int64)
    return np.concatenate([ones, draw_patients(patients, N_DRAWS)])


def _learn(
    network: Network, seed: int, images: LabelledImages, arguments: argparse.Namespace, out: Path
) -> tuple[Predictions, int, float]:
    """Find out how many epochs fill the seconds, train so many, and predict the validation fold.

    Returns:
        The predictions, the number of epochs, and the seconds that they took.
    """

    def begin(n_epochs: int) -> tuple[Training, Steps, Callable[[], Predictions]]:
        experiment = replace(network.experiment, n_epochs=n_epochs)
        training = _make_training(experiment, seed, images, arguments, out)
        if network.peer is None:
            return training, *_our_ways(training)
        return training, *_peer_ways(training, network.peer)

    training, learn, _ = begin(N_TIMED + 1)
    learn([next(iter(training.train_loader))])
    start = time.process_time()
    for _ in range(N_TIMED):
        learn([next(iter(training.train_loader))])
    step = (time.process_time() - start) / N_TIMED
    n_epochs = max(1, round(arguments.seconds / (step * training.sampler.n_batches)))

    training, learn, predict = begin(n_epochs)
    start = time.process_time()
    for epoch in range(n_epochs):
        training.sampler.epoch = epoch
        learn(training.train_loader)
    seconds = time.process_time() - start
    return predict(), n_epochs, seconds


def _make_training(
    experiment: Experiment,
    seed: int,
    images: LabelledImages,
    arguments: argparse.Namespace,
    out: Path,
) -> Training:
    weights = None
    if experiment.pretrained:
        weights = find_weights(
            experiment.encoder,
            weights_dir=config.WEIGHTS_DIR,
            named=experiment.pretrained if isinstance(experiment.pretrained, str) else None,
        )
    options = TrainingOptions(
        acceleration=Acceleration(device=torch.device("cpu"), precision=arguments.precision),
        seed=seed,
        n_workers=0,  # their seconds would be another process's
        encoder_weights=weights,
    )
    return Training(Run("learn", arguments.fold, "", out), experiment, images, options)


def _our_ways(training: Training) -> tuple[Steps, Callable[[], Predictions]]:
    """Return how the training's own network learns from batches, and how it predicts."""

    def learn(batches: Iterable[Batch]) -> None:
        progress = Progress(epoch=training.sampler.epoch)
        train_epoch(training.learner, batches, progress, shows_progress=False)

    def predict() -> Predictions:
        with training.learner.optimization.averaged():
            return validate(
                training.model,
                training.valid_loader,
                acceleration=training.options.acceleration,
                provenance=_provenance(training),
            )[1]

    return learn, predict


def _peer_ways(training: Training, encoder: str) -> tuple[Steps, Callable[[], Predictions]]:
    """Return how torchvision's network learns from the training's batches, and how it predicts."""
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

    def predict() -> Predictions:
        provenance = _provenance(training)
        return _predict_by_peer(network, training.valid_loader, acceleration, provenance)

    return learn, predict


def _provenance(training: Training) -> Provenance:
    return trained_provenance(training.files.run, training.experiment, 0)


def _predict_by_peer(
    network: RetinaNet,
    batches: Iterable[Batch],
    acceleration: Acceleration,
    provenance: Provenance,
) -> Predictions:
    """Take all boxes of torchvision's network as candidates; it says nothing of whole images."""
    network.eval()
    network.nms_thresh, network.score_thresh = NMS_IOU, DEFAULT_WEAK.min_score
    collected = PredictionCollector(provenance, DEFAULT_WEAK)
    class_probs = torch.full((len(CLASS_NAMES),), 1 / len(CLASS_NAMES))
    for batch in batches:
        with torch.inference_mode(), acceleration.arithmetic():
            found = network(peers.images_of(batch, acceleration.device))
        detections = [
            Detections(one["boxes"].float(), one["scores"].float(), class_probs) for one in found
        ]
        none = [Detections(one.boxes_xyxy[:0], one.scores[:0], class_probs) for one in detections]
        collected.add(batch, detections, none)
    return collected.finish()
