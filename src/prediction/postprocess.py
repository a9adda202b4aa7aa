"""Which candidates count in the end: suppression, gates, size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.metric import Boxes, FloatArray, IntArray, iou
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess

SCORE_FACTOR = 5.0  # the original release
CATEGORY_FACTOR = 10.0  # the second place
NOT_NORMAL_WEIGHT = 0.1  # of that class in an image's category; the second place
MAX_PADDED = 4_000_000  # numbers in one chunk's tables: keeps memory below 100 MB
PER_PAIR = 10  # numbers that the overlap of two boxes takes on its way


class SelectedBoxes(NamedTuple):
    """What counts in one image.

    Attributes:
        image: its index in the predictions.
        boxes_xyxy: (N, 4) float64, pixels of the network input;
            `Predictions.in_file_pixels` carries them to the file.
        scores: (N,) descending.
    """

    image: int
    boxes_xyxy: NDArray[np.float64]
    scores: NDArray[np.float32]


def select_boxes(predictions: Predictions, postprocess: Postprocess) -> Iterator[SelectedBoxes]:
    """Choose the boxes that count, image after image."""
    kept = suppress_at(predictions, [postprocess.nms])[0]
    kept &= gate_scores(predictions, postprocess.gate) > postprocess.threshold
    for image in range(len(predictions)):
        rows = predictions.candidates_of(image)
        boxes = predictions.boxes_xyxy[rows][kept[rows]].astype(np.float64)
        if postprocess.shrink != 1.0:
            xywh = shrink_boxes(to_xywh(boxes), postprocess.shrink)
            boxes = np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])
        yield SelectedBoxes(image, boxes, predictions.scores[rows][kept[rows]])


def gate_scores(predictions: Predictions, gate: str) -> FloatArray:
    """Compute what is compared with the score threshold, for every candidate.

    Args:
        gate: one of `presets.GATES`. "score": score x 5, the original release; "score_category":
            score x category x 10, and "sqrt_score_category": sqrt(score x category) x 5, the second
            place, where category = P(opacity) + .1 P(not normal) of the image.

    Returns:
        (K,), in the order of the candidates, descending within each image.
    """
    scores = predictions.scores.astype(np.float64)
    if gate == "score":
        return scores * SCORE_FACTOR
    probs = predictions.class_probs.astype(np.float64)
    category = probs[:, 2] + NOT_NORMAL_WEIGHT * probs[:, 0]  # the order of CLASS_NAMES
    scores = scores * np.repeat(category, np.diff(predictions.offsets))
    return scores * CATEGORY_FACTOR if gate == "score_category" else np.sqrt(scores) * SCORE_FACTOR


def suppress_at(
    predictions: Predictions, thresholds: Sequence[float], *, images: Iterable[int] | None = None
) -> NDArray[np.bool_]:
    """Suppress overlapping candidates at several thresholds; overlaps are computed once.

    Args:
        images: which; None does all. The candidates of others are all kept.

    Returns:
        (thresholds, K) which candidates are kept.
    """
    limits = np.asarray(thresholds, dtype=np.float64)[:, None]
    kept = np.ones((len(limits), len(predictions.scores)), dtype=bool)
    candidates = Boxes(to_xywh(predictions.boxes_xyxy), predictions.offsets)
    sizes = candidates.counts()
    if images is not None:
        sizes = np.where(np.isin(np.arange(len(sizes)), list(images)), sizes, 0)
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


def to_xywh(boxes_xyxy: NDArray[np.floating[Any]]) -> FloatArray:
    """Turn boxes (K, 4) from two corners into corner and size, float64."""
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


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
