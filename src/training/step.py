"""One step: a few batches to a gradient, alone or with other processes, and the weights move."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.retinanet.acceleration import Acceleration
from src.retinanet.losses import detection_losses, match_anchors
from src.retinanet.model import RetinaNet
from src.retinanet.settings import PAPER_LOSS, LossSettings
from src.structures import LOSS_NAMES, Batch, Losses, RawOutputs
from src.system.distributed import ALONE, Processes
from src.system.errors import InputError
from src.training.optimizer import Optimization
from src.training.progress import Progress, loss_sums

MAX_SKIPPED_IN_A_ROW = 10  # steps; after more the weights themselves must be spoilt


class NonFiniteError(InputError):
    """A loss or a gradient that is infinite or not a number."""


class StepKey(NamedTuple):
    """Names a batch of a training; its dropout depends on this alone."""

    seed: int
    epoch: int
    batch: int
    rank: int = 0


def seed_step(key: StepKey) -> None:
    """Seed PyTorch for one batch, so that its step can be repeated without the steps before it."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state))


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network and what moves its weights.

    Attributes:
        model: the network.
        optimization: optimizer, learning rate and gradients.
        acceleration: where and how the network runs.
        loss: how the losses are computed.
        processes: rank and number of the processes that share each batch.
        seed: of dropout.
        accumulate: batches to a step.
        skips_non_finite: leave out steps whose loss or gradient is not finite, and count them.
        network: the model, wrapped where several processes add up their gradients.
    """

    model: RetinaNet
    optimization: Optimization
    acceleration: Acceleration
    loss: LossSettings = PAPER_LOSS
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

    def own_gradients(self) -> AbstractContextManager[None]:
        """Do not add up gradients over the processes in the block."""
        if isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()

    def spread_statistics(self) -> None:
        """Give every process the first one's batch norm statistics; its own batch moved them."""
        if self.model.train_batch_norm:
            for statistics in self.model.buffers():
                self.processes.spread(statistics)

    def copy_statistics(self) -> list[Tensor]:
        """Copy what batch norm knows of the batches; nothing where it is frozen."""
        buffers = self.model.buffers() if self.model.train_batch_norm else ()
        return [buffer.clone() for buffer in buffers]

    def restore_statistics(self, statistics: Sequence[Tensor]) -> None:
        """Put back what `copy_statistics` gave: a batch that is not finite spoils it for good."""
        for buffer, copy in zip(self.model.buffers(), statistics, strict=False):
            buffer.copy_(copy)


def train_step(
    learner: Learner, group: Sequence[Batch], progress: Progress, *, stops: bool
) -> bool:
    """Move the weights once, by the mean gradient over the images of some batches.

    Args:
        progress: is moved on.
        stops: whether this process wants to stop.

    Returns:
        Whether a process wants to stop.

    Raises:
        NonFiniteError: a loss or a gradient is not finite; the weights did not move.
    """
    learner.optimization.clear_gradients()
    statistics = learner.copy_statistics() if learner.skips_non_finite else []
    own = _accumulate_gradients(learner, group, progress)  # (batches, losses)
    norm = learner.optimization.clip_gradients()
    n_images = sum(len(batch.ids) for batch in group)
    counts = torch.tensor([float(n_images), float(stops)]).to(own, non_blocking=True)
    *sums, norm_sum, n_all, n_stops = learner.processes.sum(
        torch.cat([own.sum(dim=0), norm.double()[None], counts])
    ).tolist()  # one transfer from the device
    trusted = np.isfinite(sums).all() and (
        np.isfinite(norm_sum) or learner.optimization.guards_overflow
    )
    if trusted:
        progress.running.add(sums, int(n_all))
        progress.add_norm(norm_sum / learner.processes.count)  # it is the same in all
        progress.n_skipped_in_a_row = 0
        learner.optimization.step()
    else:
        _skip_or_raise(learner, group, own, progress)
        learner.restore_statistics(statistics)
        learner.optimization.skip_step()
    progress.n_batches += len(group)
    return n_stops > 0


def _accumulate_gradients(learner: Learner, group: Sequence[Batch], progress: Progress) -> Tensor:
    """Run the network forwards and backwards; return the loss sums of each batch."""
    n_images = sum(len(batch.ids) for batch in group)
    sums: list[Tensor] = []
    for i, host_batch in enumerate(group):
        rank = learner.processes.rank
        seed_step(StepKey(learner.seed, progress.epoch, progress.n_batches + i, rank))
        batch = host_batch.to(learner.acceleration.device)
        is_last = i + 1 == len(group)  # gradients are added up over the processes once
        with nullcontext() if is_last else learner.own_gradients():
            losses = _training_losses(learner, batch)
            learner.optimization.backward(losses.total() * (len(batch.ids) / n_images))
        sums.append(loss_sums(losses, len(batch.ids)))
    return torch.stack(sums)


def _training_losses(learner: Learner, batch: Batch) -> Losses:
    """Run the network, its box head only on the levels whose boxes enter the loss."""
    model, loss = learner.model, learner.loss
    anchors = model.anchors(batch.images)
    matches = match_anchors(anchors, [target.boxes_xyxy for target in batch.targets], loss)
    with learner.acceleration.arithmetic():
        needed = model.by_level(matches.positive, batch.images)
        outputs: RawOutputs = learner.network(batch.images, needed=needed)
    return detection_losses(outputs, anchors, batch.targets, matches, loss)


def _skip_or_raise(
    learner: Learner, group: Sequence[Batch], sums: Tensor, progress: Progress
) -> None:
    """Count a step whose numbers are not finite, or end the training with their cause."""
    progress.n_skipped += 1
    progress.n_skipped_in_a_row += 1
    if learner.skips_non_finite and progress.n_skipped_in_a_row <= MAX_SKIPPED_IN_A_ROW:
        return
    step = progress.n_batches // learner.accumulate
    cause = _find_cause(learner, group, sums)
    raise NonFiniteError(
        f"epoch {progress.epoch}, step {step}: {cause}; saved checkpoints are as they were; "
        f"a lower --learning-rate is the usual cure, --skip-non-finite leaves out such steps"
    )


def _find_cause(learner: Learner, group: Sequence[Batch], sums: Tensor) -> str:
    """Name the weights, else the loss and its patients, else the gradient that is not finite.

    Args:
        sums: (batches, losses) of this process.
    """
    own = [
        f"the {name} loss is not finite; patients {', '.join(batch.ids)}"
        for batch, values in zip(group, sums.tolist(), strict=True)
        for name, value in zip(LOSS_NAMES[1:], values[1:], strict=True)
        if not np.isfinite(value)
    ][:1]
    causes = [text for texts in learner.processes.gather(own) for text in texts]
    weights = dict(learner.model.named_parameters())
    spoilt = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if spoilt:
        return f"the weights were not finite before it, such as {spoilt[0]}"
    if causes:
        return causes[0]
    bad = [
        name
        for name, weight in weights.items()
        if weight.grad is not None and not weight.grad.isfinite().all()
    ]
    what = f"is not finite, such as of {bad[0]}" if bad else "has a norm that overflows"
    patients = ", ".join(patient for batch in group for patient in batch.ids)
    return f"the gradient {what}; patients {patients}"
