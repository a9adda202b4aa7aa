"""One truth for each image of a label source: its boxes in pixels, of several readers, its class.

A box counts where its label is a finding; an image with another label alone is not normal.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from scripts.label_sources import Box, LabelRow, LabelSource, Size
from src.datasets.box_limits import leaves_image
from src.structures import NORMAL, NOT_NORMAL, OPACITY
from src.system.errors import InputError
from src.system.records import MAX_CAUSE, cut_text, show_value

DECIMALS = 3  # of a pixel: shares of an image and pixels give the same text
SIZE_UNKNOWN = "the size of the image is not known; --images FOLDER or columns of the sizes give it"
NORMAL_LABELS = {"", "no finding", "normal", "nan", "none"}  # in lower case

HowReaders = Literal["all", "intersection", "agreement"]


@dataclass(frozen=True)
class ReaderRule:
    """How the boxes of several readers become one set.

    Attributes:
        how: "all" takes every box; "agreement" the mean of boxes that overlap, of at least
            `min_readers` readers; "intersection" what is common to overlapping boxes of all readers
            of the image.
        iou: from which on two boxes mark one thing.
    """

    how: HowReaders = "all"
    min_readers: int = 2
    iou: float = 0.5


@dataclass(frozen=True)
class ImageTruth:
    """The class of an image, an index into `CLASS_NAMES`, and its boxes in pixels of its file."""

    category: int
    boxes_xyxy: tuple[Box, ...]


def settle_boxes(
    source: LabelSource, sizes: Mapping[str, Size], *, shares: bool, clip: bool
) -> list[LabelRow]:
    """Bring boxes to pixels and check them against their image; what is wrong becomes a fault.

    Args:
        sizes: patientId -> width, height; boxes of other images are not checked at the far ends.
            Where the source tells a size, it must be this one.
        shares: the boxes are shares of the image's sides.
        clip: cut off what leaves the image.
    """
    for patient, told in source.sizes.items():
        if sizes[patient] != told:
            problem = (
                f"the labels are of {_shown(told)} pixels, the image of {_shown(sizes[patient])}"
            )
            source.add_fault(f"image {cut_text(patient)}", patient, problem)
    settled = []
    for row in source.rows:
        box, size = row.box_xyxy, sizes.get(row.patient_id)
        if box is not None and shares and size is None:
            source.add_fault(row.place, row.patient_id, SIZE_UNKNOWN)
            continue
        if box is not None:
            factors = (*size, *size) if shares and size is not None else (1, 1, 1, 1)
            box = tuple(
                round(value * factor, DECIMALS) for value, factor in zip(box, factors, strict=True)
            )
            fault = _fault_of_box(box, size, clip=clip)
            if fault is None:
                box = _clip(box, size)
                fault = None if _area(box) else "the box lies outside of the image"
            if fault is not None:
                source.add_fault(row.place, row.patient_id, fault)
                continue
        settled.append(LabelRow(row.place, row.patient_id, row.label, row.reader, box))
    return settled


def make_truths(
    source: LabelSource,
    rows: Sequence[LabelRow],
    findings: Collection[str] | None,
    rule: ReaderRule,
) -> dict[str, ImageTruth]:
    """Join the rows of each image, sorted by patient.

    Args:
        rows: of `settle_boxes`.
        findings: labels that count as a box; None takes all.

    Raises:
        InputError: a finding is no label of the file, or there are no readers to compare.
    """
    known = {row.label for row in source.rows}
    unknown = sorted(set(findings or ()) - known)
    if unknown:
        shown = cut_text(", ".join(map(repr, sorted(known))), MAX_CAUSE)
        advice = "; --columns label=COLUMN says where they stand" if known == {""} else ""
        raise InputError(
            f"--findings: no label is {show_value(unknown[0])}; there are {shown}{advice}"
        )
    if rule.how != "all" and not any(row.reader for row in rows):
        raise InputError(f"--readers {rule.how}: {source.path} does not say who drew a box")
    of_image: defaultdict[str, list[LabelRow]] = defaultdict(list)
    for row in _drop_repeated(source.path, rows):
        fault = _fault_of_label(row, findings)
        if fault is None:
            of_image[row.patient_id].append(row)
        else:
            source.add_fault(row.place, row.patient_id, fault)
    return {
        patient: _truth_of(of_image[patient], findings, rule)
        for patient in sorted(source.patient_ids)
    }


def _drop_repeated(path: Path, rows: Sequence[LabelRow]) -> list[LabelRow]:
    """Keep the first of rows that say the same, and count the others in a warning."""
    first = {replace(row, place=""): row for row in reversed(rows)}
    if len(first) < len(rows):
        warnings.warn(f"{path}: {len(rows) - len(first)} repeated rows dropped", stacklevel=2)
    return list(first.values())[::-1]


def join_boxes(boxes: Mapping[str, Sequence[Box]], rule: ReaderRule) -> list[Box]:
    """Join the boxes of an image's readers, whatever the order of the readers.

    Args:
        boxes: reader -> boxes xyxy; a reader who drew none counts for "intersection".
    """
    drawn = [(box, reader) for reader in sorted(boxes) for box in boxes[reader]]
    if rule.how == "all":
        return list(dict.fromkeys(box for box, _ in drawn))
    groups: list[dict[str, Box]] = []
    for box, reader in drawn:
        open_groups = [group for group in groups if reader not in group]
        best = max(open_groups, key=lambda group: _iou(_mean(group), box), default=None)
        if best is not None and _iou(_mean(best), box) >= rule.iou:
            best[reader] = box
        else:
            groups.append({reader: box})
    if rule.how == "agreement":
        return [_mean(group) for group in groups if len(group) >= rule.min_readers]
    common = [_common(list(group.values())) for group in groups if len(group) == len(boxes)]
    return [box for box in common if _area(box)]


def _truth_of(
    rows: Sequence[LabelRow], findings: Collection[str] | None, rule: ReaderRule
) -> ImageTruth:
    by_reader: dict[str, list[Box]] = {row.reader: [] for row in rows}
    for row in rows:
        if row.box_xyxy is not None and (findings is None or row.label in findings):
            by_reader[row.reader].append(row.box_xyxy)
    boxes = join_boxes(by_reader, rule)
    if boxes:
        return ImageTruth(OPACITY, tuple(boxes))
    is_normal = all(row.box_xyxy is None and _is_normal(row.label) for row in rows)
    return ImageTruth(NORMAL if is_normal else NOT_NORMAL, ())


def _fault_of_label(row: LabelRow, findings: Collection[str] | None) -> str | None:
    if row.box_xyxy is None and row.label in (findings or ()):
        return f"{show_value(row.label)} is a finding, and the row has no box"
    if row.box_xyxy is not None and row.label and _is_normal(row.label):
        return f"{show_value(row.label)} has a box"
    return None


def _is_normal(label: str) -> bool:
    return label.strip().lower() in NORMAL_LABELS


def _fault_of_box(box: Box, size: Size | None, *, clip: bool) -> str | None:
    x, y, right, bottom = box
    shown = f"x {x:g} to {right:g}, y {y:g} to {bottom:g}"
    if not all(map(math.isfinite, box)):
        return f"a box without end: {shown}"
    if not (right > x and bottom > y):
        return f"a box without area: {shown}"
    box_xywh = np.array([[x, y, right - x, bottom - y]])
    if not clip and leaves_image(box_xywh, size or np.inf).any():
        of = "" if size is None else f", of {_shown(size)}"
        return f"the box leaves the image: {shown}{of}"
    return None


def _shown(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def _clip(box: Box, size: Size | None) -> Box:
    width, height = size or (float("inf"), float("inf"))
    x, y, right, bottom = box
    return (max(x, 0.0), max(y, 0.0), min(right, width), min(bottom, height))


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _common(boxes: Sequence[Box]) -> Box:
    x, y, right, bottom = zip(*boxes, strict=True)
    return (max(x), max(y), min(right), min(bottom))


def _mean(group: Mapping[str, Box]) -> Box:
    sides = zip(*group.values(), strict=True)
    return tuple(round(sum(values) / len(group), DECIMALS) for values in sides)


def _iou(one: Box, other: Box) -> float:
    common = _area(_common([one, other]))
    return common / (_area(one) + _area(other) - common)
