"""True boxes held against the sizes of their own images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from src.datasets.annotations import BOX_COLUMNS, LABEL_COLUMNS, Record
from src.datasets.data_folder import DataFolder, StoredImages, open_image_folder
from src.datasets.tables import AnnotationsError, read_table, refuse_rows
from src.datasets.transforms import FloatArray

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


def check_boxes(labels_path: Path, records: Sequence[Record], sizes: Mapping[str, Size]) -> None:
    """Make sure that every box lies inside of its own image.

    Args:
        labels_path: where the boxes stand, for the message.
        sizes: of the images that have boxes.

    Raises:
        AnnotationsError: one does not; the first is named with its line, the rest counted.
    """
    wrong = [record for record in records if _leaves_image(record, sizes)]
    if not wrong:
        return
    labels = read_table(labels_path, LABEL_COLUMNS)
    labels = labels[(labels["Target"] == "1") & labels["patientId"].isin(sizes)]
    boxes = labels[BOX_COLUMNS].astype(float)
    heights, widths = (labels["patientId"].map(lambda name, i=i: sizes[name][i]) for i in (0, 1))
    sides = labels.assign(rows=heights.astype(str), columns=widths.astype(str))
    outside = (boxes["x"] + boxes["width"] > widths) | (boxes["y"] + boxes["height"] > heights)
    more = f"; {outside.sum() - 1} more boxes leave theirs" if outside.sum() > 1 else ""
    problem = "box outside the image: x {x}, width {width}, y {y}, height {height}, of {columns} x "
    refuse_rows(labels_path, sides, outside, f"{problem}{{rows}} pixels{more}")


def _leaves_image(record: Record, sizes: Mapping[str, Size]) -> bool:
    if len(record.boxes_xywh) == 0:
        return False
    height, width = sizes[record.patient_id]
    ends = record.boxes_xywh[:, :2] + record.boxes_xywh[:, 2:]
    return bool((ends > (width, height)).any())


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
    check_boxes(folder.labels_path, there, sizes)
    usual = usual_size(sizes) if sizes else _size_of_all(with_boxes)
    return dict.fromkeys(patients, usual) | sizes


def usual_size(sizes: Sizes) -> Size:
    """Return the size that most images have, the challenge's where there are none."""
    most = Counter(sizes.values()).most_common(1)
    return most[0][0] if most else CHALLENGE_SIZE


def _size_of_all(records: Sequence[Record]) -> Size:
    ends = [record.boxes_xywh[:, :2] + record.boxes_xywh[:, 2:] for record in records]
    right, bottom = np.ceil(np.concatenate([np.zeros((1, 2)), *ends]).max(axis=0)).tolist()
    height, width = CHALLENGE_SIZE
    return max(height, int(bottom)), max(width, int(right))


def scaled_boxes(record: Record, sizes: Mapping[str, Size], size: Size) -> FloatArray:
    """Return a record's boxes (M, 4) xywh as they lie when its image is stretched to a size."""
    if len(record.boxes_xywh) == 0:
        return record.boxes_xywh
    height, width = sizes[record.patient_id]
    scale = np.array([size[1] / width, size[0] / height])
    return record.boxes_xywh * np.tile(scale, 2)
