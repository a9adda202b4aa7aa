"""The labels of other data sets, read: a COCO file of annotations, or a CSV with any columns."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from src.challenge.coco import (
    CocoError,
    finite_numbers,
    id_of,
    objects_of,
    patient_of_name,
    read_coco,
    read_images,
)
from src.challenge.submission_file import NUMBER
from src.datasets.patient_ids import fault_of_patient_id
from src.datasets.tables import AnnotationsError
from src.radiographs.image_files import read_any_size
from src.system.csv_files import check_shape
from src.system.errors import InputError
from src.system.files import read_bytes
from src.system.records import MAX_CAUSE, cut_text, show_value

MAX_BYTES = 2**28  # of a CSV; VinDr-CXR's takes 7 MB
SEPARATORS = (",", ";", "\t", "|")
NO_VALUE = {"", "nan", "na", "n/a", "<na>", "none", "null"}  # a cell in lower case
SIZE_COLUMNS = ("image_width", "image_height")
BOX_WAYS = (("x", "y", "x2", "y2"), ("x", "y", "width", "height"))
OTHER_COLUMNS = ("label", "reader", "groupId", *SIZE_COLUMNS)
COLUMNS = ("patientId", "x", "y", "x2", "y2", "width", "height", *OTHER_COLUMNS)
VINDR_COLUMNS = {  # the training labels of VinDr-CXR
    "patientId": "image_id",
    "label": "class_name",
    "reader": "rad_id",
    "x": "x_min",
    "y": "y_min",
    "x2": "x_max",
    "y2": "y_max",
}

Box = tuple[float, ...]  # xyxy
Size = tuple[int, int]  # width and height


@dataclass(frozen=True)
class LabelRow:
    """What one row, or one annotation, says of an image.

    Attributes:
        place: in the file, for messages.
        label, reader: "" where the file has none.
        box_xyxy: in the file's own unit; None where the row has no box.
    """

    place: str
    patient_id: str
    label: str = ""
    reader: str = ""
    box_xyxy: Box | None = None


@dataclass
class LabelSource:
    """What a file says of its images.

    Attributes:
        patient_ids: all images, those without row as well, as keys in the order of the file.
        sizes: width and height in pixels, of the images that it tells them of.
        groups: patientId -> what images of one patient have in common.
        faults: patientId -> what is wrong with its rows; "" holds those of unnamed images.
    """

    path: Path
    rows: list[LabelRow] = field(default_factory=list)
    patient_ids: dict[str, None] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def add_fault(self, place: str, patient_id: str, problem: str) -> None:
        """Note what is wrong with an image's labels, and where."""
        self.faults.setdefault(patient_id, []).append(f"{self.path}: {place}: {problem}")

    def add_image(self, place: str, patient_id: str) -> bool:
        """Note that there is an image; return whether it can be one of a data folder."""
        fault = fault_of_patient_id(patient_id)
        if fault is not None:
            self.add_fault(place, "", fault)
            return False
        self.patient_ids.setdefault(patient_id)
        return True


def read_coco_labels(path: Path) -> LabelSource:
    """Read images, categories and annotations of a COCO file.

    Raises:
        CocoError: it is no such file.
    """
    content = read_coco(path)
    source = LabelSource(path)
    images = read_images(path, content)
    for image in images.values():
        if source.add_image("images", image.patient_id) and image.width and image.height:
            source.sizes[image.patient_id] = (image.width, image.height)
    names = {
        id_of(f"{path}: categories[{place}]", value.get("id")): str(value.get("name", ""))
        for place, value in objects_of(path, content, "categories")
    }
    for place, value in objects_of(path, content, "annotations"):
        where = f"annotations[{place}]"
        key = id_of(f"{path}: {where}: image_id", value.get("image_id"))
        category = id_of(f"{path}: {where}: category_id", value.get("category_id"))
        if key not in images or category not in names:
            raise CocoError(
                f"{path}: {where}: image {show_value(key)} or category {show_value(category)} is "
                f"not in the file"
            )
        patient, bbox = images[key].patient_id, value.get("bbox")
        numbers = finite_numbers(bbox, 4)
        if bbox and numbers is None:
            source.add_fault(where, patient, f"bbox {show_value(bbox)} is not four numbers")
            continue
        box = None if numbers is None else _box_of(numbers, ends=False)
        reader = str(value.get("reader") or "")
        source.rows.append(LabelRow(where, patient, names[category], reader, box))
    return source


def read_label_table(path: Path, columns: Mapping[str, str]) -> LabelSource:
    """Read a CSV whose columns are named.

    Commas, semicolons, tabs or bars may separate the cells; with semicolons a number may have a
    decimal comma. Cells stay text: 00012 is no 12.

    Args:
        columns: of `COLUMNS` -> name in the file.

    Raises:
        AnnotationsError: it is no such table, or a column is missing.
    """
    table, has_decimal_commas = _read_table(path)
    missing = [name for name in columns.values() if name not in table]
    if missing:
        raise AnnotationsError(
            f"{path}: has no column {show_value(missing[0])}; it has "
            f"{cut_text(', '.join(map(str, table.columns)), MAX_CAUSE)}"
        )
    way = next((way for way in BOX_WAYS if all(name in columns for name in way)), None)
    if way is None or "patientId" not in columns:
        raise AnnotationsError(
            "--columns names patientId, x, y, and either x2 and y2 or width and height"
        )
    source = LabelSource(path)
    cells = table[list(columns.values())].to_numpy(dtype=object).tolist()
    for line, values in zip(table.index + 2, cells, strict=True):
        row = {name: value.strip() for name, value in zip(columns, values, strict=True)}
        if has_decimal_commas:
            row |= {name: row[name].replace(",", ".") for name in way}
        _read_row(source, f"line {line}", row, way)
    return source


def size_of_image(path: Path) -> Size | None:
    """Read an image's width and height from its header; None where it is no image."""
    try:
        height, width = read_any_size(path)
    except InputError:
        return None
    return width, height


def _read_table(path: Path) -> tuple[pd.DataFrame, bool]:
    """Read a CSV as text; the row of index i is line i + 2. Say whether semicolons separate it."""
    try:
        content = read_bytes(path, MAX_BYTES, AnnotationsError)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationsError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    header = text.split("\n", 1)[0]
    separator = max(SEPARATORS, key=header.count)
    check_shape(path, content, AnnotationsError, separator)
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        )
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        cause = cut_text(str(error), MAX_CAUSE)
        raise AnnotationsError(f"{path}: not a readable CSV file: {cause}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise AnnotationsError(f"{path}: line 2: more cells than the header has columns")
    table = table.rename(columns=str.strip).fillna("")
    if table.columns.has_duplicates:
        raise AnnotationsError(f"{path}: has two columns of one name")
    table = table[(table != "").any(axis=1)]
    if len(table) == 0:
        raise AnnotationsError(f"{path}: has no rows")
    return table, separator == ";"


def _read_row(
    source: LabelSource, place: str, row: Mapping[str, str], way: tuple[str, ...]
) -> None:
    patient = patient_of_name(row["patientId"])
    if not source.add_image(place, patient):
        return
    _read_of_image(source, place, patient, row)
    given = [row[name] for name in way if row[name].lower() not in NO_VALUE]
    label = row.get("label", "")
    if given and len(given) < len(way):
        source.add_fault(place, patient, f"some of {', '.join(way)} are empty, and some are not")
        return
    wrong = [cell for cell in given if _number(cell) is None]
    if wrong:
        source.add_fault(place, patient, f"{show_value(wrong[0])} is not a number")
        return
    box = _box_of(tuple(map(float, given)), ends="x2" in way) if given else None
    source.rows.append(LabelRow(place, patient, label, row.get("reader", ""), box))


def _read_of_image(source: LabelSource, place: str, patient: str, row: Mapping[str, str]) -> None:
    """Note size and group of an image, which all its rows must agree on."""
    given = [row.get(name, "").lower() not in NO_VALUE for name in SIZE_COLUMNS]
    if any(given) and not all(given):
        source.add_fault(place, patient, f"some of {', '.join(SIZE_COLUMNS)} are empty")
    elif all(given):
        sides = [_number(row[name]) for name in SIZE_COLUMNS]
        size = tuple(int(side) for side in sides if side is not None and side >= 1 and not side % 1)
        if len(size) != 2:
            source.add_fault(place, patient, "the size of the image is not two numbers of pixels")
        elif source.sizes.setdefault(patient, size) != size:
            source.add_fault(place, patient, "the image has another size than in a row above")
    group = row.get("groupId", "")
    if group and source.groups.setdefault(patient, group) != group:
        source.add_fault(place, patient, f"groupId {show_value(group)}: a row above has another")


def _number(cell: str) -> float | None:
    """Return a finite number, None for anything else."""
    value = float(cell) if NUMBER.fullmatch(cell) else math.nan
    return value if math.isfinite(value) else None


def _box_of(numbers: Box, *, ends: bool) -> Box:
    x, y, right, bottom = numbers
    return (x, y, right, bottom) if ends else (x, y, x + right, y + bottom)
