"""One epoch: batches to gradients to steps, alone or with other processes; then validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.prediction.collector import PredictionCollector, gather_predictions, progress_bar
from src.prediction.predictions import Predictions
from src.prediction.provenance import Provenance
from src.retinanet.acceleration import Acceleration
from src.retinanet.candidates import MIN_SCORE, find_candidates
from src.retinanet.losses import detection_losses, match_anchors
from src.retinanet.model import RetinaNet
from src.structures import Batch, Losses, RawOutputs
from src.system.distributed import ALONE, Processes
from src.system.errors import InputError
from src.training.optimizer import Optimization

LOSS_NAMES = ("loss", "classification", "regression", "global_classification")


class Stopped(Exception):  # noqa: N818 - a wish of the user's, no error
    """The training was asked to stop; it stands between two steps."""


class RunningLosses:
    """The mean of the losses so far, over images."""

    def __init__(self, sums: Sequence[float] = (0.0,) * len(LOSS_NAMES), n_images: int = 0) -> None:
        self.sums = dict(zip(LOSS_NAMES, sums, strict=True))
        self.n_images = n_images

    def add(self, sums: Sequence[float], n_images: int) -> None:
        """Add the sums over `n_images` of the losses, in the order of `LOSS_NAMES`."""
        for name, value in zip(LOSS_NAMES, sums, strict=True):
            self.sums[name] += value
        self.n_images += n_images

    def means(self) -> dict[str, float]:
        return {name: total / max(1, self.n_images) for name, total in self.sums.items()}

    def __str__(self) -> str:
        means = self.means()
        return (
            f"loss {means['loss']:.4f} cls {means['classification']:.4f} "
            f"reg {means['regression']:.4f} glob {means['global_classification']:.4f}"
        )


MAX_SKIPPED_IN_A_ROW = 10  # steps; more means that the weights are spoilt


class StepKey(NamedTuple):
    """Names a batch of a training; its dropout is drawn from this alone."""

    seed: int
    epoch: int
    batch: int
    rank: int = 0


class NonFiniteError(InputError):
    """A loss or a gradient that is not a number any more."""


@dataclass(kw_only=True)
class Progress:
    """How far an epoch of training has come: what it needs to go on, beside weights and rates.

    Attributes:
        epoch: from 0.
        n_batches: that were trained; the processes' shares of one count once.
        learning_rate: at the epoch's start.
        running: losses so far.
        n_skipped: steps that were left out for numbers that are not finite.
        n_skipped_in_a_row: the last of them.
    """

    epoch: int
    n_batches: int = 0
    learning_rate: float = 0.0
    running: RunningLosses = field(default_factory=RunningLosses)
    n_skipped: int = 0
    n_skipped_in_a_row: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        sums = [self.running.sums[name] for name in LOSS_NAMES]
        return vars(self) | {"running": [*sums, self.running.n_images]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        """Turn plain numbers back; a wrong dict raises TypeError, ValueError or KeyError."""
        *sums, n_images = state["running"]
        return cls(**(state | {"running": RunningLosses(sums, n_images)}))


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network and what moves its weights.

    Attributes:
        model: the network.
        optimization: optimizer, learning rate and gradients.
        acceleration: where and how the network runs.
        processes: that train together.
        seed: of dropout.
        accumulate: batches to a step.
        skips_non_finite: leave out steps whose loss or gradient is not finite, and count them.
        network: the model, wrapped so that its gradients are those of all processes.
    """

    model: RetinaNet
    optimization: Optimization
    acceleration: Acceleration
    processes: Processes = ALONE
    seed: int = 0
    accumulate: int = 1
    skips_non_finite: bool = False
    network: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        network: nn.Module = self.model
        if self.processes.count > 1:
            network = DistributedDataParallel(
                self.model,
                broadcast_buffers=self.model.train_batch_norm,
                gradient_as_bucket_view=True,
            )
        object.__setattr__(self, "network", network)

    def gradients_stay_here(self, stay: bool) -> AbstractContextManager[None]:
        """Do not add up gradients over processes in the block, where more batches follow."""
        if stay and isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()


def train_epoch(
    learner: Learner,
    batches: Iterable[Batch],
    progress: Progress,
    *,
    n_batches: int | None = None,
    wants_to_stop: Callable[[], bool] = lambda: False,
    after_step: Callable[[], None] = lambda: None,
    shows_progress: bool = True,
) -> None:
    """Go through the training images that are left of an epoch.

    Args:
        learner: is moved.
        batches: of this process, from `progress.n_batches` on.
        progress: is moved with it, step by step.
        n_batches: of a whole epoch, for the progress bar.
        wants_to_stop: asked at every step; one process that wants to is enough.
        after_step: called where the training could go on from.
        shows_progress: by a bar.

    Raises:
        NonFiniteError: a loss or a gradient is not finite; the weights did not move.
        Stopped: somebody wanted to, and the last step was done.
    """
    learner.model.train()
    title = f"epoch {progress.epoch} train"
    shown = shows_progress and learner.processes.is_first
    with progress_bar(batches, title, shown, n_batches, progress.n_batches) as bar:
        remaining = iter(bar)
        while group := list(islice(remaining, learner.accumulate)):
            stops = _train_step(learner, group, progress, stops=wants_to_stop())
            bar.set_postfix_str(str(progress.running), refresh=False)
            after_step()
            if stops:
                raise Stopped


def _train_step(
    learner: Learner, group: Sequence[Batch], progress: Progress, *, stops: bool
) -> bool:
    """Move the weights once by some batches; return whether a process wants to stop."""
    learner.optimization.clear_gradients()
    n_images = sum(len(batch.ids) for batch in group)
    values: list[Tensor] = []
    for i, host_batch in enumerate(group):
        rank = learner.processes.rank
        seed_step(StepKey(learner.seed, progress.epoch, progress.n_batches + i, rank))
        batch = host_batch.to(learner.acceleration.device)
        with learner.gradients_stay_here(i + 1 < len(group)):
            losses = _training_losses(learner, batch)
            learner.optimization.backward(losses.total() * (len(batch.ids) / n_images))
        values.append(loss_sums(losses, len(batch.ids)))
    norm = learner.optimization.clip_gradients()
    own = torch.stack(values)  # (batches, losses)
    told = torch.tensor([float(n_images), float(stops)]).to(own, non_blocking=True)
    *sums, norm_sum, n_all, n_stops = learner.processes.sum(
        torch.cat([own.sum(dim=0), norm.double()[None], told])
    ).tolist()  # one transfer from the device
    trusted = np.isfinite(sums).all() and (
        np.isfinite(norm_sum) or learner.optimization.guards_overflow
    )
    if trusted:
        progress.running.add(sums, int(n_all))
        progress.n_skipped_in_a_row = 0
        learner.optimization.step()
    else:
        _skip_or_raise(learner, group, own, progress)
        learner.optimization.skip_step()
    progress.n_batches += len(group)
    return n_stops > 0


def _training_losses(learner: Learner, batch: Batch) -> Losses:
    """Run the network; its box head looks only where the loss will."""
    model = learner.model
    anchors = model.anchors(batch.images)
    matches = match_anchors(anchors, [target.boxes_xyxy for target in batch.targets])
    with learner.acceleration.arithmetic():
        needed = model.by_level(matches.positive, batch.images)
        outputs: RawOutputs = learner.network(batch.images, needed=needed)
    return detection_losses(outputs, anchors, batch.targets, matches)


def _skip_or_raise(
    learner: Learner, group: Sequence[Batch], sums: Tensor, progress: Progress
) -> None:
    """Count a step that went wrong, or say all that helps to find out why."""
    progress.n_skipped += 1
    progress.n_skipped_in_a_row += 1
    if learner.skips_non_finite and progress.n_skipped_in_a_row <= MAX_SKIPPED_IN_A_ROW:
        return
    own = [
        f"the {name} loss is not finite; patients {', '.join(batch.ids)}"
        for batch, values in zip(group, sums.tolist(), strict=True)
        for name, value in zip(LOSS_NAMES[1:], values[1:], strict=True)
        if not np.isfinite(value)
    ][:1]
    found = [text for texts in learner.processes.gather(own) for text in texts]
    spoilt = [
        name for name, weight in learner.model.named_parameters() if not weight.isfinite().all()
    ]
    if spoilt:
        found = [f"the weights were not finite before it, such as {spoilt[0]}", *found]
    elif not found:
        bad = [name for name, weight in learner.model.named_parameters()
               if weight.grad is not None and not weight.grad.isfinite().all()]  # fmt: skip
        patients = ", ".join(patient for batch in group for patient in batch.ids)
        what = f"is not finite, such as of {bad[0]}" if bad else "has a norm that overflows"
        found = [f"the gradient {what}; patients {patients}"]
    step = progress.n_batches // learner.accumulate
    raise NonFiniteError(
        f"epoch {progress.epoch}, step {step}: {found[0]}; saved checkpoints are as they were; "
        f"a lower --learning-rate is the usual cure, --skip-non-finite leaves out such steps"
    )


def seed_step(key: StepKey) -> None:
    """Seed PyTorch for one batch, so that a step can be repeated without its past."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state))


def validate(
    model: RetinaNet,
    batches: Iterable[Batch],
    *,
    acceleration: Acceleration,
    provenance: Provenance,
    processes: Processes = ALONE,
    wants_to_stop: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], Predictions]:
    """Compute losses and predictions of every labelled image, in one pass.

    Args:
        batches: of this process: every `processes.count`-th image.
        provenance: goes into the predictions.
        wants_to_stop: asked after every batch.

    Returns:
        Mean losses by the names in `LOSS_NAMES`, and the predictions with their truth; every
        process gets those of all.

    Raises:
        Stopped: this process wants to.
    """
    running = RunningLosses()
    collected = PredictionCollector(provenance)
    model.eval()
    with torch.inference_mode(), progress_bar(batches, "validation", processes.is_first) as bar:
        for host_batch in bar:
            batch = host_batch.to(acceleration.device)
            anchors = model.anchors(batch.images)
            matches = match_anchors(anchors, [target.boxes_xyxy for target in batch.targets])
            needed = model.by_level(matches.positive, batch.images)
            with acceleration.arithmetic():
                outputs = model(batch.images, needed=needed, min_score=MIN_SCORE)
            losses = detection_losses(outputs, anchors, batch.targets, matches)
            running.add(loss_sums(losses, len(batch.ids)).tolist(), len(batch.ids))
            collected.add(host_batch, find_candidates(outputs, anchors, batch.image_size))
            bar.set_postfix_str(str(running), refresh=False)
            if wants_to_stop():
                raise Stopped
        *sums, n_images = processes.sum(
            torch.tensor([*running.sums.values(), running.n_images], dtype=torch.float64).to(
                acceleration.device
            )
        ).tolist()
    return RunningLosses(sums, int(n_images)).means(), gather_predictions(
        collected.finish(), processes
    )


def loss_sums(losses: Losses, n_images: int) -> Tensor:
    """Return the losses times the images, in the order of `LOSS_NAMES`, float64."""
    parts = (losses.classification, losses.regression, losses.global_classification)
    return torch.stack([losses.total(), *parts]).detach().double() * n_images
