"""Validate and predict: a network over the batches of a data loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from src.acceleration import Acceleration
from src.distributed import ALONE, Processes
from src.predictions import Predictions, join_predictions, take_images
from src.retinanet.ensemble import Ensemble
from src.retinanet.losses import detection_losses, match_anchors
from src.retinanet.model import RetinaNet
from src.retinanet.postprocess import MIN_SCORE, find_candidates
from src.structures import Batch, Detections, Losses

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


def validate(
    model: RetinaNet,
    batches: Iterable[Batch],
    *,
    acceleration: Acceleration,
    header: dict[str, Any],
    processes: Processes = ALONE,
    wants_to_stop: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], Predictions]:
    """Compute losses and predictions of every labelled image, in one pass.

    Args:
        batches: of this process: every `processes.count`-th image.
        header: goes into the predictions; img_size at least.
        wants_to_stop: asked after every batch.

    Returns:
        Mean losses by the names in `LOSS_NAMES`, and the predictions with their truth; every
        process gets those of all.

    Raises:
        Stopped: this process wants to.
    """
    running = RunningLosses()
    collected = _Collector(header)
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
    return RunningLosses(sums, int(n_images)).means(), _share(collected.finish(), processes)


def predict(
    model: RetinaNet | Ensemble,
    batches: Iterable[Batch],
    *,
    acceleration: Acceleration,
    header: dict[str, Any],
    processes: Processes = ALONE,
) -> Predictions:
    """Find candidates in every image; labels, where there are any, are passed on as the truth.

    Args:
        batches: of this process: every `processes.count`-th image.

    Returns:
        Predictions of all processes.
    """
    collected = _Collector(header)
    model.eval()
    with torch.inference_mode(), progress_bar(batches, "predict", processes.is_first) as bar:
        for host_batch in bar:
            images = host_batch.to(acceleration.device).images
            with acceleration.arithmetic():
                outputs = model(images, min_score=MIN_SCORE)
            found = find_candidates(outputs, model.anchors(images), host_batch.image_size)
            collected.add(host_batch, found)
    return _share(collected.finish(), processes)


def _share(own: Predictions, processes: Processes) -> Predictions:
    """Put together what the processes found, in the order of the images."""
    if processes.count == 1:
        return own
    parts = processes.gather(own)
    starts = np.cumsum([0, *(len(part) for part in parts)])
    n_images = int(starts[-1])
    order = [int(starts[i % len(parts)]) + i // len(parts) for i in range(n_images)]
    return take_images(join_predictions(parts), order)


def loss_sums(losses: Losses, n_images: int) -> Tensor:
    """Return the losses times the images, in the order of `LOSS_NAMES`, float64."""
    parts = (losses.classification, losses.regression, losses.global_classification)
    return torch.stack([losses.total(), *parts]).detach().double() * n_images


class _Collector:
    """Joins the detections of batches into Predictions."""

    def __init__(self, header: dict[str, Any]) -> None:
        self.header = header
        self.batches: list[Batch] = []
        self.counts: list[int] = []  # of boxes, in each image
        self.boxes_xyxy: list[Tensor] = []  # of a batch's images together, as the next two
        self.scores: list[Tensor] = []
        self.class_probs: list[Tensor] = []

    def add(self, batch: Batch, found: list[Detections]) -> None:
        self.batches.append(
            Batch(torch.empty(0), batch.targets, batch.ids, batch.file_sizes)  # drop the pixels
        )
        self.counts += [len(image.scores) for image in found]
        self.boxes_xyxy.append(torch.cat([image.boxes_xyxy for image in found]).cpu())
        self.scores.append(torch.cat([image.scores for image in found]).cpu())
        self.class_probs.append(torch.stack([image.class_probs for image in found]).cpu())

    def finish(self) -> Predictions:
        targets = [target for batch in self.batches for target in batch.targets]
        return Predictions(
            ids=np.array([patient for batch in self.batches for patient in batch.ids], dtype=str),
            image_sizes=np.array(
                [size for batch in self.batches for size in batch.file_sizes], dtype=np.int64
            ).reshape(-1, 2),
            class_probs=_join(self.class_probs, (0, 3)),
            offsets=_offsets(self.counts),
            boxes_xyxy=_join(self.boxes_xyxy, (0, 4)),
            scores=_join(self.scores, (0,)),
            true_offsets=_offsets([len(target.boxes_xyxy) for target in targets]),
            true_boxes_xyxy=_join([target.boxes_xyxy for target in targets], (0, 4)),
            true_categories=np.array([target.category for target in targets], dtype=np.int64),
            header=self.header,
        )


def _join(parts: list[Tensor], empty_shape: tuple[int, ...]) -> np.ndarray:
    return torch.cat([torch.empty(empty_shape), *parts]).numpy()


def _offsets(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


@contextmanager
def progress_bar(
    batches: Iterable[Batch],
    title: str,
    shown: bool,
    total: int | None = None,
    initial: int = 0,
) -> Iterator[tqdm[Batch]]:
    bar = tqdm(
        batches,
        title,
        total=total,
        initial=initial,
        unit="batch",
        dynamic_ncols=True,
        mininterval=0.5,
        disable=not shown,
    )
    try:
        yield bar
    finally:
        bar.close()
