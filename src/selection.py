"""Which candidates count in the end, as boxes in the pixels of the images' files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.predictions import Predictions
from src.scores import gate_scores, shrink_boxes, suppress_at


class SelectedBoxes(NamedTuple):
    """What counts in one image.

    Attributes:
        image: its index in the predictions.
        boxes_xyxy: (N, 4) float64, pixels of the image's file.
        scores: (N,) descending.
    """

    image: int
    boxes_xyxy: NDArray[np.float64]
    scores: NDArray[np.float32]


def select_boxes(
    predictions: Predictions,
    *,
    threshold: float,
    nms: float,
    gate: str = "score",
    shrink: float = 1.0,
) -> Iterator[SelectedBoxes]:
    """Choose the boxes that count, image after image.

    Args:
        threshold: a box counts when its gate (score x 5) is greater.
        nms: IoU over which the weaker of two boxes is dropped.
        gate: what is compared with the threshold; see `gate_scores`.
        shrink: factor on the sides of every box, about its centre, after the suppression.
    """
    kept = suppress_at(predictions, [nms])[0] & (gate_scores(predictions, gate) > threshold)
    for image in range(len(predictions)):
        rows = predictions.candidates_of(image)
        boxes = predictions.boxes_xyxy[rows][kept[rows]].astype(np.float64)
        if shrink != 1.0:
            xywh = shrink_boxes(np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]), shrink)
            boxes = np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])
        in_file = predictions.in_file_pixels(image, boxes)
        yield SelectedBoxes(image, in_file, predictions.scores[rows][kept[rows]])
