"""COCO's file of results: written of predictions, and read of any detector to make a submission.

A list of objects with image_id, category_id, bbox (x, y, width, height in pixels of the image's
file) and score.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.challenge.coco import (
    CocoError,
    CocoId,
    CocoImage,
    finite_numbers,
    id_of,
    patient_of_name,
    read_coco,
)
from src.prediction.outputs import (
    BOX_DECIMALS,
    SCORE_DECIMALS,
    BoxesOfImage,
    boxes_in_file,
    cut_to_file,
    write_provenance,
)
from src.prediction.postprocess import ChosenBoxes
from src.prediction.predictions import Predictions
from src.system.files import write_text
from src.system.records import cut_text, show_value


def write_results(
    path: Path,
    predictions: Predictions,
    chosen: ChosenBoxes,
    predictions_path: Path,
    *,
    images: Mapping[CocoId, CocoImage] | None,
    category_id: int,
) -> None:
    """Write the boxes that count as COCO results, and beside them where they come from.

    Args:
        images: of the annotations that the results go with, for their ids; None names each image as
            the predictions do: by its patientId or its file.

    Raises:
        CocoError: an image is not among `images`.
    """
    ids = {image.patient_id: key for key, image in (images or {}).items()}
    results: list[dict[str, Any]] = []
    by_file = predictions.provenance.named_by != "patient"
    for index, name in enumerate(predictions.ids.tolist()):
        patient = patient_of_name(name) if by_file else name
        if images is not None and patient not in ids:
            raise CocoError(
                f"{predictions_path}: image {show_value(patient)} is not in the COCO file"
            )
        for (x, y, right, bottom), score in zip(
            *boxes_in_file(predictions, chosen, index), strict=True
        ):
            sides = (x, y, right - x, bottom - y)
            results.append(
                {
                    "image_id": ids.get(patient, name),
                    "category_id": category_id,
                    "bbox": [round(float(side), BOX_DECIMALS) for side in sides],
                    "score": round(float(score), SCORE_DECIMALS),
                }
            )
    write_text(path, json.dumps(results) + "\n")
    write_provenance(path, predictions.provenance, chosen.postprocess, predictions_path)


def read_results(
    path: Path,
    images: Mapping[CocoId, CocoImage] | None,
    *,
    categories: Collection[int] | None,
    threshold: float,
) -> dict[str, BoxesOfImage]:
    """Read the results of any detector.

    Args:
        images: of the annotations that the ids are of; None where the ids are names of files.
        categories: ids of those that count; None takes all.
        threshold: on the score; weaker boxes are left out.

    Returns:
        patientId -> boxes in pixels of its file, cut to it, and their scores, descending; of all
        `images`, where they are given.

    Raises:
        CocoError: the file is missing or wrong; the first result that is wrong is named.
    """
    found: dict[str, list[tuple[float, ...]]] = {}
    sizes: dict[str, CocoImage] = {}
    for image in (images or {}).values():
        found[image.patient_id] = []
        sizes[image.patient_id] = image
    for where, result in _results_of(path):
        patient = _patient_of(where, result, images)
        box = finite_numbers(result.get("bbox"), 4)
        score = finite_numbers([result.get("score")], 1)
        if box is None or box[2] < 0 or box[3] < 0:
            raise CocoError(f"{where}: bbox {show_value(result.get('bbox'))} is not x, y, w, h")
        if score is None or not 0 <= score[0] <= 1:
            shown = show_value(result.get("score"))
            raise CocoError(f"{where}: score {shown} is not between 0 and 1")
        own = found.setdefault(patient, [])
        if score[0] >= threshold and (
            categories is None or result.get("category_id") in categories
        ):
            own.append((box[0], box[1], box[0] + box[2], box[1] + box[3], score[0]))
    return {patient: _in_image(boxes, sizes.get(patient)) for patient, boxes in found.items()}


def _results_of(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    content = read_coco(path)
    if not isinstance(content, list):
        raise CocoError(f"{path}: COCO results are a list, not {show_value(content)}")
    for place, result in enumerate(content):
        where = f"{path}: result {place}"
        if not isinstance(result, dict):
            raise CocoError(f"{where}: {show_value(result)} is not an object")
        yield where, result


def _patient_of(
    where: str, result: Mapping[str, Any], images: Mapping[CocoId, CocoImage] | None
) -> str:
    key = id_of(f"{where}: image_id", result.get("image_id"))
    if images is None:
        return patient_of_name(str(key))
    if key not in images:
        raise CocoError(f"{where}: image {cut_text(str(key))} is not in the COCO file of images")
    return images[key].patient_id


def _in_image(boxes: list[tuple[float, ...]], image: CocoImage | None) -> BoxesOfImage:
    """Cut boxes to their image; leave out those of which nothing is left in a file."""
    table = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    width = np.inf if image is None or image.width is None else image.width
    height = np.inf if image is None or image.height is None else image.height
    xyxy, scores = cut_to_file(table[:, :4], table[:, 4], (height, width))
    order = np.argsort(-scores, kind="stable")
    return xyxy[order], scores[order]
