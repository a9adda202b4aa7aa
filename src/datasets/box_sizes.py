"""True boxes held against the sizes of their own images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from src.datasets.annotations import BOX_COLUMNS, BOX_OUTSIDE, LABEL_COLUMNS, Record
from src.datasets.box_limits import MAX_ROUNDING, FloatArray, clip_boxes, leaves_image
from src.datasets.data_folder import DataFolder, StoredImages, open_image_folder
from src.datasets.tables import AnnotationsError, read_table, refuse_rows

CHALLENGE_SIZE = (1024, 1024)  # height and width of every image of the challenge, pixels

Size = tuple[int, int]  # height and width, pixels
Sizes = dict[str, Size]  # patientId -> size of its image


def read_box_sizes(records: Sequence[Record], images: StoredImages) -> Sizes:
    """Read the sizes of the images that have boxes.

    Raises:
        InputError: an image gives no radiograph.
    """
    patients = [record.patient_id for record in records if len(record.boxes_xywh)]
    return dict(zip(patients, images.read_sizes(patients), strict=True))


def fit_boxes(
    labels_path: Path, records: Sequence[Record], sizes: Mapping[str, Size]
) -> list[Record]:
    """Make sure that every box lies inside of its own image; cut off what rounding put outside.

    Args:
        labels_path: where the boxes stand, for the message.
        sizes: of the images that have boxes.

    Raises:
        AnnotationsError: a box leaves its image; the first is named with its line, the rest
            counted.
    """
    sides = {patient: (width, height) for patient, (height, width) in sizes.items()}
    with_boxes = [record for record in records if len(record.boxes_xywh)]
    if any(leaves_image(each.boxes_xywh, sides[each.patient_id]).any() for each in with_boxes):
        _refuse_boxes(labels_path, sides)
    fitting = {
        record.patient_id: clip_boxes(record.boxes_xywh, sides[record.patient_id])
        for record in with_boxes
    }
    return [
        replace(record, boxes_xywh=fitting.get(record.patient_id, record.boxes_xywh))
        for record in records
    ]


def _refuse_boxes(labels_path: Path, sides: Mapping[str, tuple[int, int]]) -> None:
    """Look for the rows of boxes that leave their image, of some width and height."""
    labels = read_table(labels_path, LABEL_COLUMNS)
    labels = labels[(labels["Target"] == "1") & labels["patientId"].isin(sides)]
    limits = np.array([sides[patient] for patient in labels["patientId"]])
    labels = labels.assign(columns=limits[:, 0].astype(str), rows=limits[:, 1].astype(str))
    outside = leaves_image(labels[BOX_COLUMNS].to_numpy(dtype=np.float64), limits)
    more = f"; {outside.sum() - 1} more boxes leave theirs" if outside.sum() > 1 else ""
    problem = f"{BOX_OUTSIDE}, of {{columns}} x {{rows}} pixels{more}"
    refuse_rows(labels_path, labels, pd.Series(outside), problem)


def sizes_of_labelled(folder: DataFolder, records: Sequence[Record]) -> Sizes:
    """Read the sizes of the images that have boxes, where labels may be there without images.

    Images that are not there count as most others. Without any they count as the challenge's, or
    as one size that holds all boxes.

    Raises:
        InputError: an image gives no radiograph, or a box leaves its image.
    """
    with_boxes = [record for record in records if len(record.boxes_xywh)]
    patients = [record.patient_id for record in with_boxes]
    try:
        images = open_image_folder(folder.images_dir("train"), patients, needs_all=False)
    except AnnotationsError:  # there are none
        return dict.fromkeys(patients, _size_of_all(with_boxes))
    there = [record for record in with_boxes if record.patient_id in images.names]
    sizes = read_box_sizes(there, images)
    fit_boxes(folder.labels_path, there, sizes)
    usual = usual_size(sizes) if sizes else _size_of_all(with_boxes)
    return dict.fromkeys(patients, usual) | sizes


def usual_size(sizes: Sizes) -> Size:
    """Return the size that most images have, the challenge's where there are none."""
    most = Counter(sizes.values()).most_common(1)
    return most[0][0] if most else CHALLENGE_SIZE


def _size_of_all(records: Sequence[Record]) -> Size:
    ends = [record.boxes_xywh[:, :2] + record.boxes_xywh[:, 2:] for record in records]
    largest = np.concatenate([np.zeros((1, 2)), *ends]).max(axis=0)
    right, bottom = np.ceil(largest - MAX_ROUNDING).tolist()
    height, width = CHALLENGE_SIZE
    return max(height, int(bottom)), max(width, int(right))


def scaled_boxes(record: Record, sizes: Mapping[str, Size], size: Size) -> FloatArray:
    """Return a record's boxes (M, 4) xywh as they lie when its image is stretched to a size."""
    if len(record.boxes_xywh) == 0:
        return record.boxes_xywh
    height, width = sizes[record.patient_id]
    scale = np.array([size[1] / width, size[0] / height])
    return record.boxes_xywh * np.tile(scale, 2)
