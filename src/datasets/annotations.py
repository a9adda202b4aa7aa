"""The challenge's label files to one checked record for each patient.

RSNA Pneumonia Detection Challenge 2018 (Shih et al., Radiology: Artificial Intelligence 2019).
Stage 1: 25,684 training images with 8,964 boxes; stage 2: 26,684 with 9,555 (6,012 images with an
opacity, 11,821 not normal, 8,851 normal).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.datasets.box_limits import FloatArray, clip_boxes, leaves_image
from src.datasets.data_folder import DataFolder
from src.datasets.patient_groups import read_groups
from src.datasets.tables import AnnotationsError, read_table, refuse_rows
from src.structures import CLASS_NAMES, NORMAL, OPACITY, UNKNOWN_CATEGORY
from src.system.records import cut_text

BOX_COLUMNS = ["x", "y", "width", "height"]
LABEL_COLUMNS = ["patientId", *BOX_COLUMNS, "Target"]
BOX_OUTSIDE = "box outside the image: x {x}, width {width}, y {y}, height {height}"


@dataclass(frozen=True, eq=False)
class Record:
    """What the label files say of one image.

    Attributes:
        patient_id: also the name of the image's file.
        category: an index into `CLASS_NAMES`, or `UNKNOWN_CATEGORY`.
        boxes_xywh: (M, 4) float64, pixels of the file; M is 0 without an opacity.
        group_id: the images of one patient share it; "" where the image is alone.
    """

    patient_id: str
    category: int
    boxes_xywh: FloatArray
    group_id: str = ""


def read_records(folder: DataFolder) -> list[Record]:
    """Read the training labels of a data folder, sorted by patient.

    Where neither a class file nor a column says the classes, an image with boxes is an opacity and
    one without is normal, and a warning says so.

    Raises:
        AnnotationsError: a file is missing or a row is wrong.
    """
    records, has_classes = _read_folder(folder)
    if not has_classes:
        opacity, normal = CLASS_NAMES[OPACITY], CLASS_NAMES[NORMAL]
        warnings.warn(
            f"{folder.labels_path}: no class is given: an image with boxes is {opacity!r} and one "
            f"without is {normal!r}; the global head learns these two",
            stacklevel=2,
        )
    return with_groups(records, read_groups(folder))


def with_groups(records: Sequence[Record], groups: Mapping[str, str]) -> list[Record]:
    """Say of every record which images are of the same patient; see `read_groups`."""
    return [replace(record, group_id=groups.get(record.patient_id, "")) for record in records]


def read_folder_classes(folder: DataFolder) -> dict[str, int]:
    """Read the class of each patient of a data folder.

    Returns:
        patientId -> index into `CLASS_NAMES`, in the order of the class file; where there is none,
        sorted by patient, as `read_records` takes them.
    """
    folder.check()
    if folder.classes_path.exists():
        return read_classes(folder.classes_path)
    return {record.patient_id: record.category for record in _read_folder(folder)[0]}


def _read_folder(folder: DataFolder) -> tuple[list[Record], bool]:
    """Read the labels of a data folder, and say whether it gives classes."""
    folder.check()
    classes_path = folder.classes_path if folder.classes_path.exists() else None
    records = read_label_files(folder.labels_path, classes_path, needs_classes=False)
    if all(record.category != UNKNOWN_CATEGORY for record in records):
        return records, True
    return [
        replace(record, category=OPACITY if len(record.boxes_xywh) else NORMAL)
        for record in records
    ], False


def read_label_files(
    labels_path: Path, classes_path: Path | None = None, *, needs_classes: bool = True
) -> list[Record]:
    """Read boxes and classes; whether boxes end inside of their images, `fit_boxes` finds out.

    Repeated rows are dropped with a warning that counts them. Differs from the original, which
    counted the boxes of stage_1_test_meta.csv as often as that file repeats them.

    Args:
        labels_path: patientId, x, y, width, height, Target, one row for a box, the box's cells
            empty where Target is 0; may have a column class as well.
        classes_path: patientId, class; not needed where the labels have the column.
        needs_classes: refuse labels whose classes stand nowhere; else they are `UNKNOWN_CATEGORY`.

    Returns:
        A record for each patient, sorted by patientId.

    Raises:
        AnnotationsError: a column is missing, or a row is wrong; the first such row is named.
    """
    labels = read_table(labels_path, LABEL_COLUMNS)
    has_classes = "class" in labels and classes_path is None
    if needs_classes and classes_path is None and not has_classes:
        raise AnnotationsError(f"{labels_path}: has no column class, and no class file was given")
    labels = labels[[*LABEL_COLUMNS, "class"] if has_classes else LABEL_COLUMNS]
    labels = labels.assign(**_check_boxes(labels_path, labels))
    labels = _drop_repeated(labels_path, labels)

    if classes_path is not None:
        classes = read_classes(classes_path)
    elif has_classes:
        classes = _check_classes(labels_path, labels[["patientId", "class"]])
    else:
        classes = dict.fromkeys(labels["patientId"], UNKNOWN_CATEGORY)
    _check_agreement(labels_path, labels, classes)
    boxes = clip_boxes(labels[BOX_COLUMNS].to_numpy(dtype=np.float64))
    return _make_records(labels["patientId"].to_numpy(dtype=str), boxes, classes)


def read_classes(path: Path) -> dict[str, int]:
    """Read patientId, class; a patient may be named several times, with one class.

    Returns:
        patientId -> index into `CLASS_NAMES`, in the order of the file.
    """
    return _check_classes(path, read_table(path, ["patientId", "class"]))


def _drop_repeated(path: Path, labels: pd.DataFrame) -> pd.DataFrame:
    repeated = labels.duplicated()
    if repeated.any():
        warnings.warn(f"{path}: {repeated.sum()} repeated rows dropped", stacklevel=2)
    return labels[~repeated]


def _check_boxes(path: Path, labels: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the four columns of xywh, NaN in rows without a box, after checking every row."""
    refuse_rows(path, labels, ~labels["Target"].isin(["0", "1"]), "Target {Target!r} is not 0 or 1")
    has_box = labels["Target"] == "1"
    values: dict[str, pd.Series] = {}
    for column in BOX_COLUMNS:
        empty = labels[column].str.strip() == ""
        values[column] = pd.to_numeric(labels[column].where(~empty), errors="coerce")
        is_number = np.isfinite(values[column])
        refuse_rows(path, labels, ~empty & ~is_number, f"{column} {{{column}!r}} is not a number")
        refuse_rows(path, labels, has_box & empty, f"Target is 1 but {column} is empty")
        refuse_rows(path, labels, ~has_box & ~empty, f"Target is 0 but {column} is {{{column}}}")
    for column in ("width", "height"):
        bad = has_box & ~(values[column] > 0)
        refuse_rows(path, labels, bad, f"{column} {{{column}}} is not positive")
    outside = leaves_image(np.column_stack([values[column] for column in BOX_COLUMNS]))
    refuse_rows(path, labels, has_box & outside, BOX_OUTSIDE)
    return values


def _check_classes(path: Path, table: pd.DataFrame) -> dict[str, int]:
    allowed = ", ".join(repr(name) for name in CLASS_NAMES)
    unknown = ~table["class"].isin(CLASS_NAMES)
    refuse_rows(path, table, unknown, f"class {{class!r}} does not exist; one of {allowed}")
    pairs = table.drop_duplicates(["patientId", "class"])
    contradiction = pairs.duplicated("patientId")
    refuse_rows(path, pairs, contradiction, "patient {patientId} has a second class, {class!r}")
    names = pairs["class"].map(CLASS_NAMES.index)
    return dict(zip(pairs["patientId"], names, strict=True))


def _check_agreement(path: Path, labels: pd.DataFrame, classes: dict[str, int]) -> None:
    """Every patient has a class; a box goes with the class of an opacity, and no box without."""
    category = labels["patientId"].map(classes)
    refuse_rows(path, labels, category.isna(), "patient {patientId} has no class")
    has_box = labels["Target"] == "1"
    expected = (category == OPACITY).where(category != UNKNOWN_CATEGORY, has_box)
    name = CLASS_NAMES[OPACITY]
    refuse_rows(path, labels, has_box & ~expected, f"Target is 1 but the class is not {name!r}")
    refuse_rows(path, labels, ~has_box & expected, f"Target is 0 but the class is {name!r}")
    contradicted = ~has_box & labels["patientId"].isin(labels["patientId"][has_box])
    refuse_rows(path, labels, contradicted, "Target is 0 but patient {patientId} has a box")
    unlabelled = set(classes) - set(labels["patientId"])
    if unlabelled:
        raise AnnotationsError(
            f"{path}: patient {cut_text(min(unlabelled))} has a class but no row"
        )


def _make_records(
    patients: NDArray[np.str_], boxes: FloatArray, classes: dict[str, int]
) -> list[Record]:
    order = np.argsort(patients, kind="stable")
    unique, starts = np.unique(patients[order], return_index=True)
    groups = np.split(boxes[order], starts[1:])
    return [
        Record(str(patient), classes[str(patient)], group[~np.isnan(group).any(axis=1)])
        for patient, group in zip(unique, groups, strict=True)
    ]
