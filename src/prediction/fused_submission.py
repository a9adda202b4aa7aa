"""One submission from the boxes of several detectors, whatever each of them is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src.challenge.submission_file import Size, SizeOf, SubmissionError, read_submission
from src.datasets.patient_ids import fault_of_patient_ids
from src.prediction.fusion import (
    DEFAULT_IOU,
    DEFAULT_SIGMA,
    Average,
    Decay,
    Fused,
    fuse_by_nms,
    fuse_by_soft_nms,
    fuse_by_vote,
    fuse_by_wbf,
)
from src.prediction.outputs import (
    boxes_in_file,
    cut_to_file,
    describe_networks,
    write_submission_of,
)
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import MAX_PLACE, load_predictions
from src.prediction.presets import Postprocess
from src.system.errors import InputError
from src.system.files import write_json
from src.system.records import cut_text

PREDICTIONS_ENDING = ".npz"  # every other input is a submission

# Each way of fusing, and the settings it has.
METHODS: dict[str, tuple[str, ...]] = {
    "nms": ("iou",),
    "soft-nms": ("decay", "sigma", "iou"),
    "wbf": ("iou",),
    "vote": ("iou", "min_votes", "average"),
}
USED_BY_DECAY = {"gaussian": "sigma", "linear": "iou"}
FUNCTIONS: dict[str, Callable[..., Fused]] = {
    "nms": fuse_by_nms,
    "soft-nms": fuse_by_soft_nms,
    "wbf": fuse_by_wbf,
    "vote": fuse_by_vote,
}


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How the boxes of several detectors become one set; what a method does not use is None.

    Attributes:
        method: a key of `METHODS`.
        iou: above which two boxes overlap.
        decay, sigma: see `fuse_by_soft_nms`.
        min_votes, average: see `fuse_by_vote`.
        skip_below: boxes of a lower score are left out before all else, whatever their weight.
        threshold: fused boxes of a lower score are left out in the end.
    """

    method: str
    iou: float | None = None
    decay: Decay | None = None
    sigma: float | None = None
    min_votes: int | None = None
    average: Average | None = None
    skip_below: float = 0.0
    threshold: float = 0.0

    def settings(self) -> dict[str, Any]:
        """Return what the method uses: the options of its function."""
        values = {name: getattr(self, name) for name in METHODS[self.method]}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Detections:
    """What one detector found in all images.

    Attributes:
        path: of its file.
        found: patientId -> boxes (N, 4) xyxy in pixels of the image's file, and scores (N,).
        sizes: patientId -> height and width of the image's file, pixels; empty where unknown.
        made_by: what the file tells about its networks and how its boxes were chosen.
    """

    path: Path
    found: dict[str, Fused]
    sizes: dict[str, Size] = field(default_factory=dict)
    made_by: dict[str, Any] = field(default_factory=dict)


def choose_fusion(method: str, flags: Mapping[str, Any], *, n_detectors: int) -> Fusion:
    """Fill in what flags leave open. A vote needs more than half of the detectors by default.

    Args:
        method: a key of `METHODS`.
        flags: values for fields of `Fusion`; None takes the default.

    Raises:
        InputError: the method does not use a value, or there are fewer detectors than votes.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    used = set(METHODS[method])
    decay = given.get("decay", "gaussian")
    if method == "soft-nms":
        used -= set(USED_BY_DECAY.values()) - {USED_BY_DECAY[decay]}
    for name in given:
        if name not in used | {"skip_below", "threshold"}:
            chosen = f"{method} --decay {decay}" if name in METHODS[method] else method
            raise InputError(f"--{name.replace('_', '-')} has no effect with --method {chosen}")
    if given.get("min_votes", 0) > n_detectors:
        raise InputError(f"--min-votes {given['min_votes']}: there are only {n_detectors} inputs")
    defaults = {
        "iou": DEFAULT_IOU,
        "decay": "gaussian",
        "sigma": DEFAULT_SIGMA,
        "min_votes": n_detectors // 2 + 1,
        "average": "mean",
    }
    settings: dict[str, Any] = {name: defaults[name] for name in used} | given
    return Fusion(method=method, **settings)


def fuse_boxes(found: Sequence[Fused], weights: Sequence[float], fusion: Fusion) -> Fused:
    """Fuse the boxes of one image.

    Args:
        found: for each detector its boxes (N, 4) xyxy, pixels of the file, and scores (N,).
        weights: of the detectors, each above 0; only their ratios matter.

    Returns:
        (F, 4) xyxy, same pixels, and scores (F,) in [0, 1], best first.
    """
    kept = [(boxes[mask], scores[mask]) for boxes, scores in found
            for mask in [scores >= fusion.skip_below]]  # fmt: skip
    function = FUNCTIONS[fusion.method]
    boxes, scores = function(*zip(*kept, strict=True), weights, **fusion.settings())
    strong = scores >= fusion.threshold
    return boxes[strong], scores[strong]


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


def write_fused(
    path: Path,
    inputs: Sequence[Detections],
    weights: Sequence[float],
    fusion: Fusion,
    *,
    size_of: SizeOf,
) -> dict[str, Fused]:
    """Write the submission of what several detectors found, and beside it (.json) how it was made.

    Boxes are cut to their image's file before they are fused. The rows have the order of the
    inputs; where the inputs differ in it, the order of the patientIds.

    Args:
        inputs: of the same images.
        weights: one for each input.
        size_of: gives the height and width of an image's file, pixels; None where it is unknown.

    Returns:
        patientId -> boxes (F, 4) xyxy, pixels of the file, and scores (F,), as they were written.
    """
    orders = {tuple(own.found) for own in inputs}
    patients = orders.pop() if len(orders) == 1 else sorted(inputs[0].found)
    fused = {}
    for patient in patients:
        size = size_of(patient)
        found = [cut_to_file(*own.found[patient], size) for own in inputs]
        fused[patient] = cut_to_file(*fuse_boxes(found, weights, fusion), size)
    write_submission_of(path, fused)
    content = {
        "inputs": [
            {
                "file": Path(os.path.relpath(own.path, path.parent)).as_posix(),
                "weight": weight,
                **own.made_by,
            }
            for own, weight in zip(inputs, weights, strict=True)
        ],
        "fusion": {name: value for name, value in asdict(fusion).items() if value is not None},
    }
    write_json(path.with_suffix(".json"), content)
    return fused


def _read_predictions(path: Path, nms: float | None, shrink: float | None) -> Detections:
    """Take all candidates that are left after NMS; those of score 0 are none."""
    predictions = load_predictions(path)
    given = {"nms": nms, "shrink": shrink}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    postprocess = Postprocess(threshold=0.0, threshold_from="fuse", **values)
    chosen = choose_boxes(predictions, postprocess)
    patients = predictions.patient_ids
    _check_ids(path, patients)
    found = {}
    for image, patient in enumerate(patients):
        boxes, scores = boxes_in_file(predictions, chosen, image)
        found[patient] = boxes, scores.astype(np.float64).clip(0, 1)
    sizes = {patient: (height, width) for patient, (height, width) in zip(
        patients, predictions.image_sizes.tolist(), strict=True)}  # fmt: skip
    made_by = describe_networks(predictions.provenance) | {"postprocess": asdict(postprocess)}
    return Detections(path, found, sizes, made_by)


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
