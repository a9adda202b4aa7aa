"""Train an epoch, validate, predict: what happens between the data loader and the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR, ReduceLROnPlateau
from tqdm import tqdm

from src.errors import InputError
from src.models import ModelInfo
from src.predictions import Predictions
from src.retinanet.ensemble import Ensemble
from src.retinanet.losses import detection_losses
from src.retinanet.model import RetinaNet
from src.retinanet.postprocess import find_candidates
from src.structures import Batch, Detections, Losses

PLATEAU_PATIENCE = 4
PLATEAU_FACTOR = 0.2
SGD_MOMENTUM = 0.95  # this and the next three: the second place's training script
SGD_RATE_FACTORS = {"encoder": 0.2, "box_head": 2.0}  # of the learning rate; others 1
SGD_MILESTONES = (8, 16, 20)
SGD_FACTOR = 0.1
LOSS_NAMES = ("loss", "classification", "regression", "global_classification")


class StepKey(NamedTuple):
    """Names a training step; its dropout is drawn from this alone."""

    seed: int
    epoch: int
    step: int


def make_optimizer(model: RetinaNet, info: ModelInfo) -> Optimizer:
    """Make the experiment's optimizer: Adam without weight decay, or SGD."""
    if info.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=info.learning_rate)
    groups = [
        {
            "params": list(part.parameters()),
            "lr": info.learning_rate * SGD_RATE_FACTORS.get(name, 1),
        }
        for name, part in model.named_children()
    ]
    return torch.optim.SGD(groups, lr=info.learning_rate, momentum=SGD_MOMENTUM)


class Scheduler:
    """Moves the learning rate: after each step, or after each epoch."""

    def __init__(self, optimizer: Optimizer, info: ModelInfo, steps_per_epoch: int) -> None:
        self.by_step: LRScheduler | None = None
        self.by_epoch: LRScheduler | None = None
        self.by_loss: ReduceLROnPlateau | None = None
        if info.scheduler == "one_cycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            n_steps = info.n_epochs * steps_per_epoch
            self.by_step = OneCycleLR(optimizer, peaks, total_steps=n_steps, cycle_momentum=False)
        elif info.scheduler == "milestones":
            self.by_epoch = MultiStepLR(optimizer, list(SGD_MILESTONES), gamma=SGD_FACTOR)
        else:
            self.by_loss = ReduceLROnPlateau(
                optimizer, patience=PLATEAU_PATIENCE, factor=PLATEAU_FACTOR
            )

    def after_step(self) -> None:
        if self.by_step is not None:
            self.by_step.step()

    def after_epoch(self, validation_regression_loss: float) -> None:
        if self.by_epoch is not None:
            self.by_epoch.step()
        if self.by_loss is not None:
            self.by_loss.step(validation_regression_loss)

    def skip(self, n_epochs: int, steps_per_epoch: int) -> None:
        """Move on as if so many epochs had been trained; what follows the loss stays."""
        for _ in range(n_epochs):
            for _ in range(steps_per_epoch):
                self.after_step()
            if self.by_epoch is not None:
                self.by_epoch.step()

    def state_dict(self) -> dict[str, Any]:
        return self._active().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._active().load_state_dict(state)

    def _active(self) -> LRScheduler:
        active = self.by_step or self.by_epoch or self.by_loss
        assert active is not None
        return active


class RunningLosses:
    """The mean of the losses so far, over images."""

    def __init__(self) -> None:
        self.sums = dict.fromkeys(LOSS_NAMES, 0.0)
        self.n_images = 0

    def add(self, losses: Losses, n_images: int) -> None:
        values = torch.stack(
            [losses.total(), losses.classification, losses.regression, losses.global_classification]
        ).tolist()  # one transfer from the device
        for name, value in zip(LOSS_NAMES, values, strict=True):
            self.sums[name] += value * n_images
        self.n_images += n_images

    def means(self) -> dict[str, float]:
        return {name: total / max(1, self.n_images) for name, total in self.sums.items()}

    def __str__(self) -> str:
        means = self.means()
        return (
            f"loss {means['loss']:.4f} cls {means['classification']:.4f} "
            f"reg {means['regression']:.4f} glob {means['global_classification']:.4f}"
        )


def train_epoch(
    model: RetinaNet,
    batches: Iterable[Batch],
    optimizer: Optimizer,
    scheduler: Scheduler,
    *,
    clip_norm: float,
    device: torch.device,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """Go once through the training images.

    Returns:
        Mean losses by the names in `LOSS_NAMES`, while the weights moved.

    Raises:
        InputError: a loss is not finite.
    """
    model.train()
    running = RunningLosses()
    with _progress(batches, f"epoch {epoch} train") as bar:
        for step, host_batch in enumerate(bar):
            seed_step(StepKey(seed, epoch, step))
            batch = host_batch.to(device)
            losses = _losses(model, batch)
            optimizer.zero_grad(set_to_none=True)
            losses.total().backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            running.add(losses, len(batch.ids))
            if not np.isfinite(running.sums["loss"]):
                raise InputError(
                    f"epoch {epoch}, step {step}: the loss is not finite; patients "
                    f"{', '.join(batch.ids)}; a lower --learning-rate is the usual cure"
                )
            optimizer.step()
            scheduler.after_step()
            bar.set_postfix_str(str(running))
    return running.means()


def seed_step(key: StepKey) -> None:
    """Seed PyTorch for one training step, so that a step can be repeated without its past."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state))


def validate(
    model: RetinaNet, batches: Iterable[Batch], *, device: torch.device, header: dict[str, Any]
) -> tuple[dict[str, float], Predictions]:
    """Compute losses and predictions of every labelled image, in one pass.

    Args:
        header: goes into the predictions; img_size at least.

    Returns:
        Mean losses by the names in `LOSS_NAMES`, and the predictions with their truth.
    """
    running = RunningLosses()
    collected = _Collector(header)
    model.eval()
    with torch.inference_mode(), _progress(batches, "validation") as bar:
        for host_batch in bar:
            batch = host_batch.to(device)
            outputs = model(batch.images)
            anchors = model.anchors(batch.images)
            running.add(detection_losses(outputs, anchors, batch.targets), len(batch.ids))
            collected.add(host_batch, find_candidates(outputs, anchors, batch.image_size))
            bar.set_postfix_str(str(running))
    return running.means(), collected.finish()


def predict(
    model: RetinaNet | Ensemble,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    header: dict[str, Any],
) -> Predictions:
    """Find candidates in every image; labels, where there are any, are passed on as the truth."""
    collected = _Collector(header)
    model.eval()
    with torch.inference_mode(), _progress(batches, "predict") as bar:
        for host_batch in bar:
            images = host_batch.to(device).images
            outputs = model(images)
            found = find_candidates(outputs, model.anchors(images), host_batch.image_size)
            collected.add(host_batch, found)
    return collected.finish()


def choose_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:1" into a device that is there.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name!r}: not on this machine; try auto or cpu") from error
    return device


class _Collector:
    """Joins the detections of batches into Predictions."""

    def __init__(self, header: dict[str, Any]) -> None:
        self.header = header
        self.batches: list[Batch] = []
        self.found: list[Detections] = []

    def add(self, batch: Batch, found: list[Detections]) -> None:
        self.batches.append(
            Batch(torch.empty(0), batch.targets, batch.ids, batch.file_sizes)  # drop the pixels
        )
        self.found += [
            Detections(d.boxes_xyxy.cpu(), d.scores.cpu(), d.class_probs.cpu()) for d in found
        ]

    def finish(self) -> Predictions:
        targets = [target for batch in self.batches for target in batch.targets]
        return Predictions(
            ids=np.array([patient for batch in self.batches for patient in batch.ids], dtype=str),
            image_sizes=np.array(
                [size for batch in self.batches for size in batch.file_sizes], dtype=np.int64
            ).reshape(-1, 2),
            class_probs=_join([d.class_probs[None] for d in self.found], (0, 3)),
            offsets=_offsets([len(d.scores) for d in self.found]),
            boxes_xyxy=_join([d.boxes_xyxy for d in self.found], (0, 4)),
            scores=_join([d.scores for d in self.found], (0,)),
            true_offsets=_offsets([len(target.boxes_xyxy) for target in targets]),
            true_boxes_xyxy=_join([target.boxes_xyxy for target in targets], (0, 4)),
            true_categories=np.array([target.category for target in targets], dtype=np.int64),
            header=self.header,
        )


def _losses(model: RetinaNet, batch: Batch) -> Losses:
    outputs = model(batch.images)
    return detection_losses(outputs, model.anchors(batch.images), batch.targets)


def _join(parts: list[Tensor], empty_shape: tuple[int, ...]) -> np.ndarray:
    return torch.cat([torch.empty(empty_shape), *parts]).numpy()


def _offsets(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


@contextmanager
def _progress(batches: Iterable[Batch], title: str) -> Iterator[tqdm[Batch]]:
    bar = tqdm(batches, desc=title, unit="batch", dynamic_ncols=True, mininterval=0.5)
    try:
        yield bar
    except InputError as error:
        raise _without_worker_traceback(error) from error
    finally:
        bar.close()


def _without_worker_traceback(error: InputError) -> InputError:
    """Take a worker process's error out of the traceback that PyTorch wraps around its text."""
    kind = type(error)
    message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2]
    return kind(message.strip())
