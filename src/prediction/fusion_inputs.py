"""What several detectors found in the same images, from the files that are fused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src.challenge.submission_file import Size, SubmissionError, read_submission
from src.datasets.patient_ids import fault_of_patient_ids
from src.prediction.fusion import Fused
from src.prediction.outputs import boxes_in_file, describe_networks
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import MAX_PLACE, Predictions, load_predictions
from src.prediction.presets import Postprocess
from src.system.files import real_path
from src.system.records import cut_text

PREDICTIONS_ENDING = ".npz"  # every other input is a submission
MAX_WEIGHT_RATIO = 1e6  # of an input's weight to another's


@dataclass(frozen=True, eq=False)
class Detections:
    """What one detector found in all images.

    Attributes:
        path: of its file.
        found: patientId -> boxes (N, 4) xyxy in pixels of the image's file, and scores (N,).
        sizes: patientId -> height and width of the image's file, pixels; empty where unknown.
        predictions: what the file holds; None for a submission.
        postprocess: how its boxes were chosen; None for a submission.
    """

    path: Path
    found: dict[str, Fused]
    sizes: dict[str, Size] = field(default_factory=dict)
    predictions: Predictions | None = None
    postprocess: Postprocess | None = None

    def describe(self) -> dict[str, Any]:
        """Write out what the file tells about its networks and how its boxes were chosen."""
        if self.predictions is None or self.postprocess is None:
            return {}
        networks = describe_networks(self.predictions.provenance)
        return networks | {"postprocess": asdict(self.postprocess)}

    def with_weak(self) -> dict[str, Fused] | None:
        """Return `found` with the weaker boxes that were saved; None where none were."""
        predictions = self.predictions
        if predictions is None or self.postprocess is None or predictions.provenance.weak is None:
            return None
        return _found_in(predictions.with_weak(), self.postprocess)


def check_inputs(paths: Sequence[Path]) -> None:
    """Make sure that there are at least two files, all different.

    Raises:
        SubmissionError: there are not.
    """
    if len(paths) < 2:
        raise SubmissionError(f"{paths[0]}: fuse needs at least two inputs")
    seen = set()
    for path in paths:
        place = real_path(path)
        if place in seen:
            raise SubmissionError(f"{path}: is given twice; --weights lets one input count more")
        seen.add(place)


def settle_weights(weights: Sequence[float] | None, paths: Sequence[Path]) -> Sequence[float]:
    """Weigh all files alike where no weights are given.

    Raises:
        SubmissionError: there are too few or too many weights, or one is as good as 0.
    """
    if weights is None:
        return [1.0] * len(paths)
    if len(weights) != len(paths):
        raise SubmissionError(f"--weights: {len(weights)} weights for {len(paths)} inputs")
    if max(weights) / MAX_WEIGHT_RATIO > min(weights):
        raise SubmissionError(
            f"--weights: {max(weights):g} is more than {MAX_WEIGHT_RATIO:g} times "
            f"{min(weights):g}: leave that input out instead"
        )
    return weights


def read_detections(path: Path, *, nms: float | None, shrink: float | None) -> Detections:
    """Read a file of predictions (.npz) or a submission.

    Args:
        nms, shrink: of predictions, as in `Postprocess`; None takes its defaults.

    Raises:
        InputError: the file is missing or wrong, or makes no submission.
    """
    if path.suffix == PREDICTIONS_ENDING:
        return _read_predictions(path, nms, shrink)
    return _read_submission(path)


def check_same_images(inputs: Sequence[Detections]) -> None:
    """Make sure that all detectors have seen the same images.

    Raises:
        SubmissionError: a patient is missing in a file, or the sizes of an image differ.
    """
    everywhere = {patient: own for own in reversed(inputs) for patient in own.found}
    sizes: dict[str, tuple[Size, Path]] = {}
    for own in inputs:
        missing = sorted(set(everywhere) - set(own.found))
        if missing:
            raise SubmissionError(
                f"{own.path}: {len(missing)} patients are missing, the first is "
                f"{cut_text(missing[0])}, which is in {everywhere[missing[0]].path}"
            )
        for patient, size in own.sizes.items():
            known, path = sizes.setdefault(patient, (size, own.path))
            if size != known:
                raise SubmissionError(
                    f"{own.path}: the image of patient {cut_text(patient)} has {_show(size)} "
                    f"pixels, but {_show(known)} in {path}"
                )


def _read_predictions(path: Path, nms: float | None, shrink: float | None) -> Detections:
    """Take all candidates that are left after NMS; those of score 0 are none."""
    predictions = load_predictions(path)
    given = {"nms": nms, "shrink": shrink}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    postprocess = Postprocess(threshold=0.0, threshold_from="fuse", **values)
    patients = predictions.patient_ids
    _check_ids(path, patients)
    sizes = {patient: (height, width) for patient, (height, width) in zip(
        patients, predictions.image_sizes.tolist(), strict=True)}  # fmt: skip
    found = _found_in(predictions, postprocess)
    return Detections(path, found, sizes, predictions, postprocess)


def _found_in(predictions: Predictions, postprocess: Postprocess) -> dict[str, Fused]:
    chosen = choose_boxes(predictions, postprocess)
    found = {}
    for image, patient in enumerate(predictions.patient_ids):
        boxes, scores = boxes_in_file(predictions, chosen, image)
        found[patient] = boxes, scores.astype(np.float64).clip(0, 1)
    return found


def _read_submission(path: Path) -> Detections:
    found = {}
    for patient, boxes in read_submission(path).items():
        for box in boxes:
            if not 0 <= box.confidence <= 1:
                raise SubmissionError(
                    f"{path}: patient {cut_text(patient)}: confidence {box.confidence:g} is not "
                    f"between 0 and 1: it cannot be compared with those of other detectors"
                )
        corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]
        table = np.array(corners, dtype=np.float64).reshape(-1, 4)
        table = table.clip(-MAX_PLACE, MAX_PLACE)  # sums may be infinite
        found[patient] = table, np.array([box.confidence for box in boxes], dtype=np.float64)
    _check_ids(path, found)
    return Detections(path, found)


def _check_ids(path: Path, patients: Iterable[str]) -> None:
    fault = fault_of_patient_ids(patients)
    if fault is not None:
        raise SubmissionError(f"{path}: makes no submission: {fault}")


def _show(size: Size) -> str:
    height, width = size
    return f"{width} x {height}"
