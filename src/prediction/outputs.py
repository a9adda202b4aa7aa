"""What is written of predictions: boxes.csv, Kaggle's submission, and what made them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.challenge.submission_check import check_ids
from src.challenge.submission_file import HEADER
from src.datasets.tables import read_sample_ids
from src.prediction.postprocess import select_boxes
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess
from src.prediction.provenance import write_provenance
from src.radiographs.image_files import ImageFile, ids_are_patients
from src.structures import CLASS_NAMES
from src.system.files import replaced_file

if TYPE_CHECKING:  # `--help` waits for nothing
    import numpy as np
    from numpy.typing import NDArray


BOX_COLUMNS = ("file", "x", "y", "width", "height", "score")


def write_results(
    folder: Path,
    files: Sequence[ImageFile],
    predictions: Predictions,
    postprocess: Postprocess,
    *,
    sample_path: Path | None = None,
) -> None:
    """Write predictions.npz and boxes.csv, and submission.csv where the files are patients'.

    Args:
        sample_path: a sample submission, for the order of the submission's rows.
    """
    path = folder / "predictions.npz"
    predictions.save(path)
    write_boxes(folder / "boxes.csv", predictions, postprocess)
    write_provenance(folder / "boxes.csv", predictions, path, postprocess)
    if ids_are_patients(files):
        save_submission(
            folder / "submission.csv", predictions, path, postprocess, sample_path=sample_path
        )


def write_boxes(path: Path, predictions: Predictions, postprocess: Postprocess) -> None:
    """Write a row for each box, in pixels of its file; an image without one has a row too.

    Columns: file, x, y, width, height, score, and the probability of each class of the image.
    """
    with replaced_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*BOX_COLUMNS, *(f"P({name})" for name in CLASS_NAMES)])
        for image, boxes, scores in select_boxes(predictions, postprocess):
            probs = [f"{p:.4f}" for p in predictions.class_probs[image]]
            name = str(predictions.ids[image])
            in_file = predictions.in_file_pixels(image, boxes)
            for (x, y, x2, y2), score in zip(in_file, scores, strict=True):
                box = [f"{value:.1f}" for value in (x, y, x2 - x, y2 - y)]
                writer.writerow([name, *box, f"{score:.4f}", *probs])
            if not len(scores):
                writer.writerow([name, *[""] * 5, *probs])


def prediction_strings(predictions: Predictions, postprocess: Postprocess) -> dict[str, str]:
    """Write out the boxes of every image that count: `confidence x y width height` repeated.

    Returns:
        patientId -> string, empty for an image without boxes; pixels of the image's file.
    """
    from src.prediction.postprocess import select_boxes

    return {
        str(predictions.ids[image]): _format(predictions.in_file_pixels(image, boxes), scores)
        for image, boxes, scores in select_boxes(predictions, postprocess)
    }


def write_submission(path: Path, strings: Mapping[str, str], order: Iterable[str]) -> None:
    """Write a submission, whole or not at all.

    Args:
        strings: patientId -> PredictionString.
        order: the patients, as the rows shall follow.
    """
    from src.system.files import replaced_file

    with replaced_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((patient, strings[patient]) for patient in order)


def save_submission(
    path: Path,
    predictions: Predictions,
    predictions_path: Path,
    postprocess: Postprocess,
    *,
    sample_path: Path | None = None,
) -> int:
    """Write the submission of some predictions, and beside it (.json) where it comes from.

    Args:
        predictions_path: their file.
        sample_path: a sample submission, for the order of the rows.

    Returns:
        How many images have boxes.

    Raises:
        AnnotationsError: the sample is missing or wrong.
        SubmissionError: it names other patients.
    """
    from src.prediction.provenance import write_provenance

    strings = prediction_strings(predictions, postprocess)
    order = list(strings)
    if sample_path is not None:
        order = read_sample_ids(sample_path)
        check_ids(list(strings), order, sample_path)
    write_submission(path, strings, order)
    write_provenance(path, predictions, predictions_path, postprocess)
    return sum(map(bool, strings.values()))


def _format(boxes_xyxy: NDArray[np.float64], scores: NDArray[np.float32]) -> str:
    return " ".join(
        f"{score:.4f} {x:.1f} {y:.1f} {x2 - x:.1f} {y2 - y:.1f}"
        for (x, y, x2, y2), score in zip(boxes_xyxy, scores, strict=True)
    )
