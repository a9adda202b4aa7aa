"""Batches of detections to Predictions, in one process or in several that share the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from src.prediction.predictions import Predictions, join_predictions, take_images
from src.prediction.provenance import Provenance
from src.retinanet.settings import NO_WEAK, WeakLimits
from src.structures import Batch, Detections
from src.system.distributed import Processes


class PredictionCollector:
    """Joins the detections of batches into Predictions.

    Nothing else of a batch is kept, and what is kept lies in a few large blocks: small pieces of
    memory between the large ones of the network's next batches would let the process grow by many
    times their size.
    """

    def __init__(self, provenance: Provenance, weak: WeakLimits = NO_WEAK) -> None:
        """Begin without images.

        Args:
            provenance: what will have made the predictions.
            weak: which boxes will be kept beside the candidates.
        """
        self.provenance = replace(provenance, weak=weak if weak.max_count else None)
        self.ids: list[str] = []
        self.group_ids: list[str] = []
        self.image_sizes = _Rows(np.int64, 2)
        self.class_probs = _Rows(np.float32, 3)
        self.counts = _Rows(np.int64)  # of boxes, in each image
        self.boxes_xyxy = _Rows(np.float32, 4)
        self.scores = _Rows(np.float32)
        self.weak_counts = _Rows(np.int64)
        self.weak_boxes_xyxy = _Rows(np.float32, 4)
        self.weak_scores = _Rows(np.float32)
        self.true_counts = _Rows(np.int64)
        self.true_boxes_xyxy = _Rows(np.float32, 4)
        self.true_categories = _Rows(np.int64)

    def add(self, batch: Batch, found: list[Detections], weak: list[Detections]) -> None:
        """Keep the candidates of a batch, the weaker boxes beside them, and the truth."""
        targets = batch.targets
        self.ids += batch.ids
        self.group_ids += [target.group_id for target in targets]
        self.image_sizes.add(batch.file_sizes)
        self.class_probs.add(torch.stack([image.class_probs for image in found]).cpu())
        self.counts.add([len(image.scores) for image in found])
        self.boxes_xyxy.add(torch.cat([image.boxes_xyxy for image in found]).cpu())
        self.scores.add(torch.cat([image.scores for image in found]).cpu())
        self.weak_counts.add([len(image.scores) for image in weak])
        self.weak_boxes_xyxy.add(torch.cat([image.boxes_xyxy for image in weak]).cpu())
        self.weak_scores.add(torch.cat([image.scores for image in weak]).cpu())
        self.true_counts.add([len(target.boxes_xyxy) for target in targets])
        self.true_boxes_xyxy.add(torch.cat([target.boxes_xyxy for target in targets]))
        self.true_categories.add([target.category for target in targets])

    def finish(self) -> Predictions:
        """Return the predictions of all batches, in the order in which they came."""
        return Predictions(
            ids=np.array(self.ids, dtype=str),
            group_ids=np.array(self.group_ids, dtype=str),
            image_sizes=self.image_sizes.joined(),
            class_probs=self.class_probs.joined(),
            offsets=_offsets(self.counts.joined()),
            boxes_xyxy=self.boxes_xyxy.joined(),
            scores=self.scores.joined(),
            weak_offsets=_offsets(self.weak_counts.joined()),
            weak_boxes_xyxy=self.weak_boxes_xyxy.joined(),
            weak_scores=self.weak_scores.joined(),
            true_offsets=_offsets(self.true_counts.joined()),
            true_boxes_xyxy=self.true_boxes_xyxy.joined(),
            true_categories=self.true_categories.joined(),
            provenance=self.provenance,
        )


class _Rows:
    """Rows of numbers in one block of memory that grows."""

    def __init__(self, dtype: type[np.number[Any]], *shape: int) -> None:
        """Begin without rows; `shape` is that of one."""
        self.dtype, self.shape = dtype, shape
        self.content = bytearray()

    def add(self, rows: ArrayLike) -> None:
        self.content += np.asarray(rows, dtype=self.dtype).tobytes()

    def joined(self) -> NDArray[Any]:
        """Return all rows; no more can be added then."""
        return np.frombuffer(self.content, dtype=self.dtype).reshape(-1, *self.shape)


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


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
