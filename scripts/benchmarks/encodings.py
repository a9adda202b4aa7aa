"""A trained run's score on the same radiographs in the encodings in which hospitals store them."""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import config
from scripts.benchmarks.measuring import describe_machine, report
from scripts.radiograph_encodings import ENCODINGS
from src.datasets.annotations import Record, read_records
from src.datasets.data_folder import DataFolder
from src.datasets.folds import load_folds, split_records
from src.experiments.runs import Run
from src.metric import map_iou
from src.radiographs.dicom import read_pixels
from src.radiographs.image_files import read_any_image
from src.radiographs.pixels import as_float
from src.system.command_line import natural
from src.system.errors import InputError

RUNNER = Path(__file__).resolve().parents[2] / "src" / "train_runner.py"
# The part of an image in which the levels are counted: both lungs, and no border.
LUNGS = ((0.2, 0.8), (0.1, 0.9))  # shares of height and width
PERCENTILES = (1, 99)

Boxes = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="demo", help="a trained experiment")
    parser.add_argument("--fold", type=int, default=0, help="whose validation images are taken")
    parser.add_argument("--output-dir", type=Path, default=config.OUTPUT_DIR, help="of its run")
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR, help="challenge's data")
    parser.add_argument("--images", type=natural, default=100, help="how many of 8 bits")
    parser.add_argument("--json", type=Path, help="write the numbers")


def run(arguments: argparse.Namespace) -> None:
    """Encode, predict by the command that users call, and score."""
    trained = Run(arguments.model, arguments.fold, "", arguments.output_dir)
    if not trained.epochs_with_checkpoint():
        raise InputError(f"{trained.dir}: holds no checkpoints; --action train makes them")
    folder = DataFolder(arguments.data_dir)
    _, records = split_records(read_records(folder), load_folds(folder), arguments.fold)
    records = records[: arguments.images]
    images_dir = folder.images_dir("train")
    with tempfile.TemporaryDirectory() as temporary:
        files, results = Path(temporary, "files"), Path(temporary, "results")
        levels = _write_files(files, records, images_dir)
        command = [sys.executable, str(RUNNER), "--action", "generate_predictions", "--model",
                   arguments.model, "--fold", str(arguments.fold), "--output-dir",
                   str(arguments.output_dir), "--data-dir", str(arguments.data_dir), "--input",
                   str(files), "--out", str(results)]  # fmt: skip
        if subprocess.run(command, check=False).returncode:
            raise InputError("the predictions failed; the lines above say why")
        found = _read_boxes(next(results.rglob("boxes.csv")))
    rows = [
        {
            "encoding": name,
            "score": _score(records, found, index),
            "levels of the lungs": levels[name],
            "images with boxes": sum(_id(index, record) in found for record in records),
        }
        for index, name in enumerate(ENCODINGS)
    ]
    n_positive = sum(len(record.boxes_xywh) > 0 for record in records)
    print(f"{len(records)} images, {n_positive} with opacities\n")
    report(rows, describe_machine("cpu", 1), arguments.json)


def _write_files(folder: Path, records: Sequence[Record], images_dir: Path) -> Mapping[str, float]:
    """Write every image in every encoding; return the mean levels of each encoding."""
    levels: dict[str, float] = {}
    pictures = [read_pixels(images_dir / f"{record.patient_id}.dcm") for record in records]
    if any(picture.dtype != np.uint8 for picture in pictures):
        raise InputError(f"{images_dir}: the images to encode have to be plain 8-bit")
    for index, (name, encode) in enumerate(ENCODINGS.items()):
        (folder / str(index)).mkdir(parents=True)
        counts = []
        for record, picture in zip(records, pictures, strict=True):
            path = folder / _id(index, record)
            path.write_bytes(encode(np.asarray(picture, np.uint8)))
            counts.append(_count_levels(path))
        levels[name] = float(np.mean(counts))
    return levels


def _id(index: int, record: Record) -> str:
    """Name a file: its place below the folder is its name in boxes.csv."""
    return f"{index}/{record.patient_id}"


def _count_levels(path: Path) -> float:
    image = as_float(read_any_image(path))
    rows, columns = (
        slice(int(start * side), int(stop * side))
        for (start, stop), side in zip(LUNGS, image.shape, strict=True)
    )
    low, high = np.percentile(image[rows, columns], PERCENTILES)
    return float(255 * (high - low))


def _read_boxes(path: Path) -> Mapping[str, list[list[float]]]:
    """Return x, y, width, height and score of the boxes of each file that has some."""
    found: dict[str, list[list[float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if not row["score"]:  # an image without boxes
                continue
            box = [float(row[name]) for name in ("x", "y", "width", "height", "score")]
            found.setdefault(row["file"], []).append(box)
    return found


def _score(records: Sequence[Record], found: Mapping[str, list[list[float]]], index: int) -> float:
    """Return the challenge's score of one encoding."""
    return float(np.mean(list(_image_scores(records, found, index))))


def _image_scores(
    records: Sequence[Record], found: Mapping[str, list[list[float]]], index: int
) -> Iterator[float]:
    for record in records:
        boxes = np.array(found.get(_id(index, record), [])).reshape(-1, 5)
        score = map_iou(record.boxes_xywh, boxes[:, :4], boxes[:, 4])
        if score is not None:
            yield score
