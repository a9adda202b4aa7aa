"""Batches of detections to Predictions, in one process or in several that share the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from src.prediction.predictions import Predictions, join_predictions, take_images
from src.prediction.provenance import Provenance
from src.structures import Batch, Detections
from src.system.distributed import Processes


class PredictionCollector:
    """Joins the detections of batches into Predictions."""

    def __init__(self, provenance: Provenance) -> None:
        """Begin without images; `provenance` says what will have made the predictions."""
        self.provenance = provenance
        self.batches: list[Batch] = []
        self.counts: list[int] = []  # of boxes, in each image
        self.boxes_xyxy: list[Tensor] = []  # of a batch's images together, as the next two
        self.scores: list[Tensor] = []
        self.class_probs: list[Tensor] = []

    def add(self, batch: Batch, found: list[Detections]) -> None:
        """Keep what was found in a batch, and its truth."""
        self.batches.append(
            Batch(torch.empty(0), batch.targets, batch.ids, batch.file_sizes)  # drop the pixels
        )
        self.counts += [len(image.scores) for image in found]
        self.boxes_xyxy.append(torch.cat([image.boxes_xyxy for image in found]).cpu())
        self.scores.append(torch.cat([image.scores for image in found]).cpu())
        self.class_probs.append(torch.stack([image.class_probs for image in found]).cpu())

    def finish(self) -> Predictions:
        """Return the predictions of all batches, in the order in which they came."""
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
            provenance=self.provenance,
        )


def gather_predictions(own: Predictions, processes: Processes) -> Predictions:
    """Put together what the processes found, in the order of the images."""
    if processes.count == 1:
        return own
    parts = processes.gather(own)
    starts = np.cumsum([0, *(len(part) for part in parts)])
    n_images = int(starts[-1])
    order = [int(starts[i % len(parts)]) + i // len(parts) for i in range(n_images)]
    return take_images(join_predictions(parts), order)


@contextmanager
def progress_bar(
    batches: Iterable[Batch],
    title: str,
    shown: bool,
    total: int | None = None,
    initial: int = 0,
) -> Iterator[tqdm[Batch]]:
    """Show how far a data loader has come; the bar is closed when the block ends."""
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


def _join(parts: list[Tensor], empty_shape: tuple[int, ...]) -> np.ndarray:
    return torch.cat([torch.empty(empty_shape), *parts]).numpy()


def _offsets(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
