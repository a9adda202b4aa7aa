"""The boxes of several detectors as those of one, and as a submission."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from src.challenge.submission_file import SizeOf
from src.prediction.fusion import (
    Fused,
    fuse_by_nms,
    fuse_by_soft_nms,
    fuse_by_vote,
    fuse_by_wbf,
)
from src.prediction.fusion_inputs import Detections
from src.prediction.fusion_settings import Fusion
from src.prediction.outputs import cut_to_file, made_by_path, write_submission_of
from src.system.files import write_json

FUNCTIONS: dict[str, Callable[..., Fused]] = {
    "nms": fuse_by_nms,
    "soft-nms": fuse_by_soft_nms,
    "wbf": fuse_by_wbf,
    "vote": fuse_by_vote,
}


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


def fuse_images(
    patients: Iterable[str],
    found: Sequence[Mapping[str, Fused]],
    weights: Sequence[float],
    fusion: Fusion,
    *,
    size_of: SizeOf,
) -> dict[str, Fused]:
    """Fuse the boxes of every image; they are cut to its file before and after.

    Args:
        found: for each detector patientId -> boxes (N, 4) xyxy in pixels of the file, scores (N,).
        weights: one for each detector.
        size_of: gives the height and width of an image's file, pixels; None where it is unknown.

    Returns:
        patientId -> boxes (F, 4) xyxy in pixels of the file, and scores (F,), best first.
    """
    fused = {}
    for patient in patients:
        size = size_of(patient)
        cut = [cut_to_file(*own[patient], size) for own in found]
        fused[patient] = cut_to_file(*fuse_boxes(cut, weights, fusion), size)
    return fused


def write_fused(
    path: Path,
    inputs: Sequence[Detections],
    weights: Sequence[float],
    fusion: Fusion,
    *,
    size_of: SizeOf,
) -> dict[str, Fused]:
    """Write the submission of what several detectors found, and beside it how it was made.

    The rows have the order of the inputs; where the inputs differ in it, the order of the
    patientIds.

    Args:
        inputs: of the same images.
        weights: one for each input.
        size_of: see `fuse_images`.

    Returns:
        patientId -> boxes (F, 4) xyxy, pixels of the file, and scores (F,), as they were written.
    """
    orders = {tuple(own.found) for own in inputs}
    patients = orders.pop() if len(orders) == 1 else sorted(inputs[0].found)
    found = [own.found for own in inputs]
    fused = fuse_images(patients, found, weights, fusion, size_of=size_of)
    write_submission_of(path, fused)
    content = {
        "inputs": [
            {
                "file": Path(os.path.relpath(own.path, path.parent)).as_posix(),
                "weight": weight,
                **own.describe(),
            }
            for own, weight in zip(inputs, weights, strict=True)
        ],
        "fusion": fusion.describe(),
    }
    write_json(made_by_path(path), content)
    return fused
