"""What is written of predictions: boxes.csv, Kaggle's submission, and what made them.

Predictions are kept and used again with other settings, so their own file does not tell what a CSV
was made with: a JSON file beside every CSV does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.challenge.submission_check import check_ids
from src.challenge.submission_file import HEADER, SubmissionError
from src.datasets.patient_ids import fault_of_patient_ids
from src.datasets.tables import read_sample_ids
from src.experiments.experiment_file import WeightsFile, write_description
from src.prediction.postprocess import ChosenBoxes
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess
from src.prediction.provenance import NetworkSet, Provenance
from src.structures import CLASS_NAMES
from src.system.files import write_csv, write_json

BOX_DECIMALS = 1  # of a pixel, in files
SCORE_DECIMALS = 4
Score = TypeVar("Score", np.float32, np.float64)
BoxesOfImage = tuple[NDArray[np.float64], NDArray[np.float64]]  # (N, 4) xyxy, and scores (N,)
BOX_COLUMNS = ("file", "patientId", "x", "y", "width", "height", "score")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The files that the predictions of some images by some networks go to.

    Attributes:
        folder: of all of them.
        predictions: candidates of every image.
        submission: Kaggle's CSV, for images that are patients'.
        boxes: boxes.csv; None where nobody asks for it.
        is_run: whether the folder is a run's: its experiment.json, where a training wrote one,
            stays, and its predictions are used again.
    """

    folder: Path
    predictions: Path
    submission: Path
    boxes: Path | None = None
    is_run: bool = False

    @property
    def experiment(self) -> Path:
        return self.folder / "experiment.json"

    @property
    def overlays(self) -> Path:
        return self.folder / "overlays"

    @property
    def files(self) -> list[Path]:
        """Return all files but the pictures, those beside a CSV as well."""
        tables = [self.submission] if self.boxes is None else [self.submission, self.boxes]
        beside = [made_by_path(path) for path in tables]
        return [self.predictions, *tables, *beside, self.experiment]


def made_by_path(path: Path) -> Path:
    """Name the file beside results that says what made them."""
    return path.with_name(f"{path.stem}_made_by.json")


def place_in_run(networks: NetworkSet, split: str) -> Place:
    """Name the files of a split in the layout of a run, by the networks' last epoch.

    Args:
        split: "valid" or "test".
    """
    run, epoch = networks.run, networks.last_epoch
    paths = {"valid": run.predictions_path, "test": run.test_predictions_path}
    return Place(
        folder=run.dir,
        predictions=paths[split](epoch),
        submission=run.submission_path(split, epoch),
        is_run=True,
    )


def place_in_folder(folder: Path) -> Place:
    """Name the files in a folder that holds the predictions of one set of images alone."""
    return Place(
        folder=folder,
        predictions=folder / "predictions.npz",
        submission=folder / "submission.csv",
        boxes=folder / "boxes.csv",
    )


def write_boxes(
    path: Path,
    predictions: Predictions,
    chosen: ChosenBoxes,
    predictions_path: Path,
    *,
    files: Sequence[str],
) -> None:
    """Write a row for each box, in pixels of its file; an image without one has a row too.

    Columns: file, patientId (empty where the file is no patient's), x, y, width, height, score, and
    the probability of each class of the image.

    Args:
        files: of the images, below the folder that was predicted.
    """
    header = [*BOX_COLUMNS, *(f"P({name})" for name in CLASS_NAMES)]
    write_csv(path, header, _box_rows(predictions, chosen, files))
    write_provenance(path, predictions.provenance, chosen.postprocess, predictions_path)


def write_submission(
    path: Path,
    predictions: Predictions,
    chosen: ChosenBoxes,
    predictions_path: Path,
    *,
    sample_path: Path | None = None,
) -> None:
    """Write the submission of some predictions, and beside it where it comes from.

    Args:
        predictions_path: their file.
        sample_path: a sample submission, for the order of the rows.

    Raises:
        SubmissionError: an image cannot be named in a submission, or the sample names others.
        AnnotationsError: the sample is missing or wrong.
    """
    fault = fault_of_patient_ids(predictions.patient_ids)
    if fault is not None:
        raise SubmissionError(f"{predictions_path}: makes no submission: {fault}")
    strings = prediction_strings(predictions, chosen)
    order: Sequence[str] = list(strings)
    if sample_path is not None:
        order = read_sample_ids(sample_path)
        check_ids(list(strings), order, sample_path)
    write_csv(path, HEADER, ((patient, strings[patient]) for patient in order))
    write_provenance(path, predictions.provenance, chosen.postprocess, predictions_path)


def write_submission_of(path: Path, found: Mapping[str, BoxesOfImage]) -> None:
    """Write a submission in the order of the images: patientId -> boxes in pixels of its file."""
    write_csv(path, HEADER, ((patient, prediction_string(*own)) for patient, own in found.items()))


def prediction_strings(predictions: Predictions, chosen: ChosenBoxes) -> dict[str, str]:
    """Write out the boxes of every image that count: `confidence x y width height` repeated.

    Returns:
        patientId -> string, empty for an image without boxes; pixels of the image's file.
    """
    strings = {}
    for image, patient in enumerate(predictions.patient_ids):
        strings[patient] = prediction_string(*boxes_in_file(predictions, chosen, image))
    return strings


def write_provenance(
    path: Path, provenance: Provenance, postprocess: Postprocess, predictions_path: Path
) -> None:
    """Write beside results what made them: predictions, networks with their weights, postprocess.

    Args:
        path: of the results.
        predictions_path: is named relative to their folder.
    """
    content = {
        "predictions": Path(os.path.relpath(predictions_path, path.parent)).as_posix(),
        **describe_networks(provenance),
        "postprocess": asdict(postprocess),
    }
    write_json(made_by_path(path), content)


def write_prediction_experiment(
    place: Place,
    provenance: Provenance,
    postprocess: Postprocess,
    images_dir: Path,
    weights: Sequence[WeightsFile] = (),
) -> None:
    """Write experiment.json: which networks looked at which images, and how.

    Args:
        weights: the files of weights that were named instead of runs, if they were.
    """
    content = {
        "model": provenance.model,
        "tag": provenance.tag,
        "fold": provenance.fold,
        **describe_networks(provenance),
        **describe_weights(weights),
        "postprocess": asdict(postprocess),
        "images": images_dir,
    }
    write_description(place.experiment, content)


def describe_networks(provenance: Provenance) -> dict[str, Any]:
    """Write out what predicted as files name it: members (their weights sum to 1), and hflip."""
    members = [asdict(network) for network in provenance.networks]
    described: dict[str, Any] = {"members": members, "hflip": provenance.hflip}
    if provenance.image_scores is not None:
        described["image_scores"] = provenance.image_scores
    if provenance.fusion is not None:
        described["fusion"] = provenance.fusion.fusion.describe()
    return described


def describe_weights(weights: Sequence[WeightsFile]) -> dict[str, Any]:
    """Write out which files of weights predicted; nothing where runs did."""
    return {"weights": [asdict(file) for file in weights]} if weights else {}


def boxes_in_file(
    predictions: Predictions, chosen: ChosenBoxes, image: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the boxes of an image, (N, 4) xyxy in pixels of its file, and their scores.

    What a network input shows beside its file is cut off; a box of which nothing is left, at the
    precision that files have, is left out.
    """
    boxes, scores = chosen.of_image(image)
    height, width = predictions.image_sizes[image].tolist()
    return cut_to_file(predictions.in_file_pixels(image, boxes), scores, (height, width))


def cut_to_file(
    boxes_xyxy: NDArray[np.float64],
    scores: NDArray[Score],
    size: tuple[float, float] | None,
) -> tuple[NDArray[np.float64], NDArray[Score]]:
    """Cut boxes to their file; leave out those of which nothing is left, at files' precision.

    Args:
        boxes_xyxy: (N, 4), pixels of the file.
        scores: (N,).
        size: height and width, pixels, infinite where unknown; None where both are.

    Returns:
        (M, 4) and (M,).
    """
    height, width = size or (np.inf, np.inf)
    in_file = boxes_xyxy.clip(0, [width, height, width, height])
    has_area = ((in_file[:, 2:] - in_file[:, :2]).round(BOX_DECIMALS) > 0).all(axis=1)
    return in_file[has_area], scores[has_area]


def _box_rows(
    predictions: Predictions, chosen: ChosenBoxes, files: Sequence[str]
) -> Iterator[list[str]]:
    for image, names in enumerate(zip(files, predictions.patient_ids, strict=True)):
        probs = [f"{p:.4f}" for p in predictions.class_probs[image]]
        in_file, scores = boxes_in_file(predictions, chosen, image)
        for (x, y, x2, y2), score in zip(in_file, scores, strict=True):
            box = [f"{value:.{BOX_DECIMALS}f}" for value in (x, y, x2 - x, y2 - y)]
            yield [*names, *box, f"{score:.{SCORE_DECIMALS}f}", *probs]
        if not len(scores):
            yield [*names, *[""] * 5, *probs]


def prediction_string(boxes_xyxy: NDArray[np.float64], scores: NDArray[np.floating[Any]]) -> str:
    """Write out the boxes of an image, in pixels of its file: `confidence x y width height`."""
    words = []
    for (x, y, x2, y2), score in zip(boxes_xyxy, scores, strict=True):
        box = (f"{value:.{BOX_DECIMALS}f}" for value in (x, y, x2 - x, y2 - y))
        words += [f"{score:.{SCORE_DECIMALS}f}", *box]
    return " ".join(words)
