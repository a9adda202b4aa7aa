"""From the saved predictions of a run to what is compared, and whether runs can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.experiments.runs import runs_at
from src.metric import Boxes, FloatArray, image_scores
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import Predictions, take_images, to_xywh, to_xyxy
from src.prediction.presets import Postprocess
from src.prediction.saved_epochs import load_epoch, predictions_path, saved_epochs
from src.scoring.comparison import ComparedRun
from src.scoring.grid import sweep_pooled
from src.scoring.scored_images import scored_predictions
from src.scoring.sweep import Choice, ScoresError, choose_epoch
from src.system.errors import InputError
from src.system.records import cut_text

# Pixels of the file: boxes that come from the pixels of a network input are rounded, and labels
# that differ do so by more.
TRUE_BOX_TOLERANCE = 0.5


class ReadRun(NamedTuple):
    """A run, or a pool of folds, as it is compared, and what was taken of it."""

    run: ComparedRun
    run_dirs: list[Path]
    epoch: int
    postprocess: Postprocess

    @property
    def predictions_paths(self) -> list[Path]:
        """Return the files that hold its predictions."""
        return [predictions_path(run_dir, self.epoch) for run_dir in self.run_dirs]


def read_run(path: Path) -> ReadRun:
    """Take the best epoch and setting of a run by its scores.npz, else the last epoch.

    Where `path` is the common name of folds, see `runs_at`, all their images are taken as one set,
    at the epoch and setting of the paper's grid that are best for it. The images are sorted by
    their ids.

    Raises:
        InputError: a run or its predictions are missing or wrong, or hold no truth.
    """
    run_dirs = runs_at(path)
    choice = _choose(run_dirs)
    postprocess = choice.postprocess
    if len(run_dirs) > 1 and not postprocess.threshold_is_open:
        postprocess = replace(postprocess, threshold_from="best on these images")
    predictions = load_epoch(run_dirs, choice.epoch)
    if not predictions.has_truth:
        raise ScoresError(f"{path}: its predictions hold no true boxes to compare them with")
    predictions = take_images(predictions, np.argsort(predictions.ids, kind="stable").tolist())
    chosen = choose_boxes(predictions, postprocess)
    run = ComparedRun(
        name=str(path),
        data=scored_predictions(predictions, postprocess),
        image_scores=image_scores(chosen.boxes, predictions.truth()),
        chosen=_in_files(predictions, chosen.boxes),
        confidences=chosen.scores.astype(np.float64),
        true=_in_files(predictions, predictions.truth()),
    )
    return ReadRun(run, run_dirs, choice.epoch, postprocess)


def _choose(run_dirs: Sequence[Path]) -> Choice:
    """Choose the epoch and the setting of one run, or of folds that are scored together."""
    if len(run_dirs) == 1:
        return choose_epoch(run_dirs[0] / "scores.npz", saved_epochs(run_dirs[0]))
    sweep = sweep_pooled(run_dirs)
    return sweep.choose(sweep.epochs)


def check_same_images(runs: Sequence[ComparedRun]) -> None:
    """Make sure that runs are of the same images, with the same truth, in one order.

    Raises:
        InputError: they are not; the message names an image and its run.
    """
    first = runs[0]
    for other in runs[1:]:
        for run, lacking in ((first, other), (other, first)):
            missing = set(run.data.ids) - set(lacking.data.ids)
            if missing:
                raise InputError(
                    f"{lacking.name}: lacks {len(missing)} images of {run.name}, such as "
                    f"{cut_text(min(missing))}; only runs over the same images can be compared"
                )
        if list(first.data.ids) != list(other.data.ids):
            raise ValueError(f"{first.name} and {other.name} have their images in another order")
        for image, name in enumerate(first.data.ids):
            ours, theirs = (_boxes_of(run.true, image) for run in (first, other))
            if not are_same_boxes(ours, theirs):
                raise InputError(
                    f"{other.name}: the true boxes of image {cut_text(name)} are not those of "
                    f"{first.name}: {_describe(theirs)}, not {_describe(ours)}; only runs with the "
                    f"same labels can be compared"
                )


def are_same_boxes(
    boxes_xywh: FloatArray, others_xywh: FloatArray, tolerance: float = TRUE_BOX_TOLERANCE
) -> bool:
    """Say whether two sets of boxes (M, 4) are equal, in any order, up to a rounding of edges."""
    if len(boxes_xywh) != len(others_xywh):
        return False
    left = to_xyxy(others_xywh)
    for box in to_xyxy(boxes_xywh):
        distances = np.abs(left - box).max(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] > tolerance:
            return False
        left = np.delete(left, nearest, axis=0)
    return True


def _in_files(predictions: Predictions, boxes: Boxes) -> Boxes:
    """Carry boxes of all images to the pixels of their files."""
    corners = to_xyxy(boxes.xywh)
    for image in np.flatnonzero(boxes.counts()).tolist():
        rows = boxes.rows(image)
        corners[rows] = predictions.in_file_pixels(image, corners[rows])
    return boxes._replace(xywh=to_xywh(corners))


def _boxes_of(boxes: Boxes, image: int) -> FloatArray:
    return boxes.xywh[boxes.rows(image)]


def _describe(boxes_xywh: FloatArray) -> str:
    if len(boxes_xywh) == 0:
        return "none"
    first = " ".join(f"{value:.1f}" for value in boxes_xywh[0].tolist())
    return f"{len(boxes_xywh)}, the first at {first}"
