"""Which candidates count in the end: suppression, gate, size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.metric import Boxes, FloatArray, IntArray, iou
from src.prediction.predictions import Predictions, to_xyxy
from src.prediction.presets import GATES, NOT_NORMAL_WEIGHT, Postprocess
from src.structures import NOT_NORMAL, OPACITY

MAX_PADDED = 4_000_000  # numbers in one chunk's tables: keeps memory below 100 MB
PER_PAIR = 10  # numbers that the overlap of two boxes takes on its way


@dataclass(frozen=True, eq=False)
class ChosenBoxes:
    """The boxes that count, of all images.

    Attributes:
        postprocess: how they were chosen.
        rows: (F,) their rows among the candidates.
        boxes: F boxes, pixels of the network input, shrunk; best first within each image.
        scores: (F,) float32, descending within each image.
    """

    postprocess: Postprocess
    rows: IntArray
    boxes: Boxes
    scores: NDArray[np.float32]

    def of_image(self, image: int) -> tuple[FloatArray, NDArray[np.float32]]:
        """Return the boxes of an image, (N, 4) xyxy in pixels of the input, and their scores."""
        rows = self.boxes.rows(image)
        return to_xyxy(self.boxes.xywh[rows]), self.scores[rows]


def choose_boxes(predictions: Predictions, postprocess: Postprocess) -> ChosenBoxes:
    """Choose the boxes that count: suppress overlaps, apply the gate, scale the sides."""
    candidates = predictions.candidates()
    kept = suppress_at(candidates, [postprocess.nms])[0]
    kept &= gate_scores(predictions, postprocess.gate) > postprocess.threshold
    boxes = candidates.kept(kept)
    shrunk = boxes._replace(xywh=shrink_boxes(boxes.xywh, postprocess.shrink))
    return ChosenBoxes(postprocess, np.flatnonzero(kept), shrunk, predictions.scores[kept])


def gate_scores(predictions: Predictions, gate: str) -> FloatArray:
    """Compute what is compared with the score threshold, for every candidate.

    Args:
        gate: a key of `presets.GATES`.

    Returns:
        (K,), in the order of the candidates, descending within each image.
    """
    probs = predictions.class_probs.astype(np.float64)
    category = probs[:, OPACITY] + NOT_NORMAL_WEIGHT * probs[:, NOT_NORMAL]
    scores, counts = predictions.scores.astype(np.float64), np.diff(predictions.offsets)
    values: FloatArray = GATES[gate].value(scores, np.repeat(category, counts))
    return values


def suppress_at(candidates: Boxes, thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Suppress overlapping boxes at several thresholds; overlaps are computed once.

    Args:
        candidates: K boxes, best first within each image.

    Returns:
        (thresholds, K) which candidates are kept.
    """
    limits = np.asarray(thresholds, dtype=np.float64)[:, None]
    kept = np.ones((len(limits), len(candidates.xywh)), dtype=bool)
    sizes = candidates.counts()
    for chunk in _like_sized_chunks(sizes, sizes * (len(limits) + PER_PAIR)):
        boxes, rows = _pad_boxes(candidates, chunk)
        alive = np.ones((len(chunk), len(limits), boxes.shape[1]), dtype=bool)
        for first in range(boxes.shape[1] - 1):
            left = np.flatnonzero(alive[:, :, first].any(axis=1))  # it may suppress others there
            overlaps = iou(boxes[left, first, None], boxes[left, first + 1 :])  # (L, N - first - 1)
            too_close = overlaps[:, None] > limits  # (L, T, N - first - 1)
            alive[left, :, first + 1 :] &= ~(alive[left, :, first, None] & too_close)
        image, rank = np.nonzero(rows >= 0)
        kept[:, rows[image, rank]] = alive[image, :, rank].T
    return kept


def shrink_boxes(boxes_xywh: FloatArray, factor: float) -> FloatArray:
    """Scale the sides of boxes (K, 4) about their centres (second place: 0.875)."""
    sides = boxes_xywh[:, 2:]
    return np.concatenate([boxes_xywh[:, :2] + sides * (1 - factor) / 2, sides * factor], axis=1)


def _pad_boxes(boxes: Boxes, images: IntArray) -> tuple[FloatArray, IntArray]:
    """Lay the boxes of some images side by side.

    Returns:
        (I, N, 4) boxes, padded with boxes of size 0, and (I, N) their rows in the table, -1 where
        padded.
    """
    counts = boxes.counts()[images]
    rank = np.arange(counts.max())
    rows = np.where(rank < counts[:, None], boxes.offsets[images][:, None] + rank, -1)
    return np.where((rows >= 0)[..., None], boxes.xywh[rows], 0.0), rows


def _like_sized_chunks(sizes: IntArray, costs: IntArray) -> Iterator[IntArray]:
    """Group images with like numbers of boxes, so that little is padded and memory is bounded.

    Args:
        sizes: (I,) boxes of each image; images without are left out.
        costs: (I,) numbers that an image takes in the largest table.

    Yields:
        Indices of images, each image once.
    """
    images = np.argsort(sizes, kind="stable")
    images = images[sizes[images] > 0]
    while len(images):
        n_like = int(np.searchsorted(sizes[images], 2 * sizes[images[0]], side="right"))
        n_chunk = max(1, min(n_like, MAX_PADDED // int(costs[images[:n_like]].max())))
        yield images[:n_chunk]
        images = images[n_chunk:]
