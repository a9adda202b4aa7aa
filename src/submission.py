"""Kaggle's submission file: for each image its boxes in pixels of the original image."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.errors import InputError
from src.files import replaced_file
from src.predictions import Predictions
from src.scores import gate_scores, suppress_at

HEADER = ("patientId", "PredictionString")


class SubmissionError(InputError):
    """A submission, or a sample submission, that is missing or wrong."""


def prediction_strings(
    predictions: Predictions, *, threshold: float, nms: float, gate: str = "score"
) -> dict[str, str]:
    """Write out the boxes of every image: `confidence x y width height` repeated.

    Args:
        threshold: a box counts when its gate (score x 5) is greater.
        nms: IoU over which a weaker box is dropped.

    Returns:
        patientId -> string, empty for an image without boxes; pixels of the image's file.
    """
    kept = suppress_at(predictions, [nms])[0] & (gate_scores(predictions, gate) > threshold)
    strings = {}
    for image, patient in enumerate(predictions.ids):
        rows = predictions.candidates_of(image)
        chosen = kept[rows]
        boxes = predictions.in_file_pixels(image, predictions.boxes_xyxy[rows][chosen])
        strings[str(patient)] = _format(boxes, predictions.scores[rows][chosen])
    return strings


def write_submission(path: Path, strings: Mapping[str, str], order: Iterable[str]) -> None:
    """Write a submission, whole or not at all.

    Args:
        strings: patientId -> PredictionString.
        order: the patients, as the rows shall follow.
    """
    with replaced_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((patient, strings[patient]) for patient in order)


def read_sample_ids(path: Path) -> list[str]:
    """Read the patients that a submission must hold, in their order.

    Raises:
        SubmissionError: the sample submission is missing or wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SubmissionError(f"{path}: cannot be read: {error}") from error
    if not rows or not set(HEADER) <= set(rows[0]):
        raise SubmissionError(f"{path}: needs rows with the columns {', '.join(HEADER)}")
    ids = [row[HEADER[0]] for row in rows]
    if len(set(ids)) < len(ids):
        twice = next(patient for patient, count in Counter(ids).items() if count > 1)
        raise SubmissionError(f"{path}: names patient {twice} more than once")
    return ids


def check_ids(found: Sequence[str], expected: Sequence[str], path: Path) -> None:
    """Compare the images at hand with those of the sample submission.

    Raises:
        SubmissionError: they are not the same; the first of each kind is named.
    """
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    for patients, what in ((missing, "have no image"), (extra, "are not listed there")):
        if patients:
            raise SubmissionError(
                f"{path}: {len(patients)} patients {what}, the first is {patients[0]}"
            )


def _format(boxes_xyxy: NDArray[np.float64], scores: NDArray[np.float32]) -> str:
    return " ".join(
        f"{score:.4f} {x:.1f} {y:.1f} {x2 - x:.1f} {y2 - y:.1f}"
        for (x, y, x2, y2), score in zip(boxes_xyxy, scores, strict=True)
    )
