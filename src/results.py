"""What is written of the predictions of image files: boxes, a submission, pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from src.datasets.annotations import CLASS_NAMES
from src.datasets.image_files import ImageFile, ids_are_patients
from src.datasets.test_dataset import TestDataset
from src.files import replaced_file
from src.predictions import Predictions
from src.presets import Postprocess
from src.provenance import write_provenance
from src.selection import select_boxes
from src.submission import save_submission
from src.visualizations.overlays import draw_predictions, save_picture

BOX_COLUMNS = ("file", "x", "y", "width", "height", "score")


def write_results(
    folder: Path,
    files: Sequence[ImageFile],
    predictions: Predictions,
    settings: Postprocess,
    *,
    sample_path: Path | None = None,
) -> None:
    """Write predictions.npz and boxes.csv, and submission.csv where the files are patients'.

    Args:
        sample_path: a sample submission, for the order of the submission's rows.
    """
    path = folder / "predictions.npz"
    predictions.save(path)
    write_boxes(folder / "boxes.csv", predictions, settings)
    write_provenance(folder / "boxes.csv", predictions, path, settings)
    if ids_are_patients(files):
        save_submission(
            folder / "submission.csv", predictions, path, settings, sample_path=sample_path
        )


def write_boxes(path: Path, predictions: Predictions, settings: Postprocess) -> None:
    """Write a row for each box, in pixels of its file; an image without one has a row too.

    Columns: file, x, y, width, height, score, and the probability of each class of the image.
    """
    with replaced_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*BOX_COLUMNS, *(f"P({name})" for name in CLASS_NAMES)])
        for image, boxes, scores in select_boxes(predictions, settings):
            probs = [f"{p:.4f}" for p in predictions.class_probs[image]]
            name = str(predictions.ids[image])
            in_file = predictions.in_file_pixels(image, boxes)
            for (x, y, x2, y2), score in zip(in_file, scores, strict=True):
                box = [f"{value:.1f}" for value in (x, y, x2 - x, y2 - y)]
                writer.writerow([name, *box, f"{score:.4f}", *probs])
            if not len(scores):
                writer.writerow([name, *[""] * 5, *probs])


def draw_files(
    folder: Path, dataset: TestDataset, predictions: Predictions, settings: Postprocess
) -> None:
    """Draw the boxes over every image: PNG files named after the images, in their folders."""
    selected = select_boxes(predictions, settings)
    for found in tqdm(selected, "draw", len(predictions), unit="picture"):
        image = dataset[found.image].picture()
        path = folder / f"{predictions.ids[found.image]}.png"
        save_picture(path, draw_predictions(image, predictions, found))
