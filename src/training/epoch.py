"""One epoch: the steps over the training images; then losses and predictions of validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice

import torch

from src.prediction.collector import PredictionCollector, gather_predictions, progress_bar
from src.prediction.predictions import Predictions
from src.prediction.provenance import Provenance
from src.retinanet.acceleration import Acceleration
from src.retinanet.candidates import find_candidates, find_weak
from src.retinanet.losses import detection_losses, match_anchors
from src.retinanet.model import RetinaNet
from src.retinanet.settings import DEFAULT_WEAK, PAPER_LOSS, LossSettings, WeakLimits
from src.structures import Batch
from src.system.distributed import ALONE, Processes
from src.training.progress import Progress, RunningLosses, loss_sums
from src.training.step import Learner, train_step


class Stopped(Exception):  # noqa: N818 - the user's wish, no error
    """The training was asked to stop; it stands between two steps."""


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
        learner: its weights move.
        batches: of this process, from `progress.n_batches` on.
        progress: is moved on, step by step.
        n_batches: of a whole epoch, for the progress bar.
        wants_to_stop: asked at every step; one process that wants to stop is enough.
        after_step: called after every step, where the training could be continued from.
        shows_progress: by a bar.

    Raises:
        NonFiniteError: a loss or a gradient is not finite; the weights did not move.
        Stopped: a process wants to stop, and the last step is complete.
    """
    learner.model.train()
    title = f"epoch {progress.epoch} train"
    shown = shows_progress and learner.processes.is_first
    with progress_bar(batches, title, shown, n_batches, progress.n_batches) as bar:
        remaining, began = iter(bar), time.monotonic()
        while group := list(islice(remaining, learner.accumulate)):
            progress.waited_seconds += time.monotonic() - began
            stops = train_step(learner, group, progress, stops=wants_to_stop())
            bar.set_postfix_str(str(progress.running), refresh=False)
            progress.seconds += time.monotonic() - began
            after_step()
            if stops:
                raise Stopped
            began = time.monotonic()


def validate(
    model: RetinaNet,
    batches: Iterable[Batch],
    *,
    acceleration: Acceleration,
    provenance: Provenance,
    loss: LossSettings = PAPER_LOSS,
    processes: Processes = ALONE,
    weak: WeakLimits = DEFAULT_WEAK,
    wants_to_stop: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], Predictions]:
    """Compute losses and predictions of every labelled image, in one pass.

    Args:
        batches: of this process: every `processes.count`-th image.
        provenance: goes into the predictions.
        loss: how the losses are computed.
        processes: rank and number of the processes that share the images.
        weak: which boxes are kept beside the candidates.
        wants_to_stop: asked after every batch; one process that wants to stop is enough.

    Returns:
        Mean losses by the names in `LOSS_NAMES`, and the predictions with their truth; every
        process gets those of all images.

    Raises:
        Stopped: a process wants to stop.
    """
    running, stops = RunningLosses(), False
    collected = PredictionCollector(provenance, weak)
    least_score = weak.least_score(model.limits)
    model.eval()
    with torch.inference_mode(), progress_bar(batches, "validation", processes.is_first) as bar:
        for host_batch in bar:
            batch = host_batch.to(acceleration.device)
            anchors = model.anchors(batch.images)
            boxes = [target.boxes_xyxy for target in batch.targets]
            matches = match_anchors(anchors, boxes, loss)
            needed = model.by_level(matches.positive, batch.images)
            with acceleration.arithmetic():
                outputs = model(batch.images, needed=needed, min_score=least_score)
            losses = detection_losses(outputs, anchors, batch.targets, matches, loss)
            running.add(loss_sums(losses, len(batch.ids)).tolist(), len(batch.ids))
            place = outputs, anchors, batch.image_size
            found = find_candidates(*place, model.limits)
            collected.add(host_batch, found, find_weak(*place, found, model.limits, weak))
            bar.set_postfix_str(str(running), refresh=False)
            if stops := wants_to_stop():
                break
        own = [*running.sums.values(), running.n_images, stops]
        *sums, n_images, n_stops = processes.sum(
            torch.tensor(own, dtype=torch.float64).to(acceleration.device)
        ).tolist()
    if n_stops:
        raise Stopped
    predictions = gather_predictions(collected.finish(), processes)
    return RunningLosses(sums, int(n_images)).means(), predictions
