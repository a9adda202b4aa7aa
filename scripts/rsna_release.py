"""RSNA's own release of the challenge's data: an MD.ai export and a tree of DICOM files.

The export is one JSON file: `labelGroups[].labels[] {id, name}` and `datasets[0].annotations[]`
with SOPInstanceUID (which image), labelId and data, which is {x, y, width, height} in pixels for an
opacity and null otherwise. The labels that the challenge used are those of the group "Calculated".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.dicom_headers import Header, find_images, read_headers
from src.datasets.annotations import BOX_COLUMNS
from src.datasets.box_sizes import CHALLENGE_SIZE
from src.structures import CLASS_NAMES, OPACITY
from src.system.errors import InputError
from src.system.files import read_json

ADJUDICATED_GROUP = "Calculated"  # other groups would hold what single readers drew

MAX_EXPORT_BYTES = 2**27  # of the JSON; the release's is a small part of it
ENDLESS = 1e9  # pixels; JSON has numbers of any length, and NaN

Box = tuple[float, ...]


class ReleaseError(InputError):
    """A part of the release that is missing or wrong."""


@dataclass(frozen=True)
class Truth:
    """What the release says of an image; boxes are xywh, pixels of its file."""

    class_name: str
    boxes_xywh: tuple[Box, ...]


@dataclass
class Findings:
    """What is remarkable in a release.

    Attributes:
        faults: kind -> each case; none of them is used.
        remarks: kind -> number of cases; of kinds that the release is known to have.
    """

    faults: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    remarks: Counter[str] = field(default_factory=Counter)

    def summarise_faults(self) -> str:
        """Say in one line how many faults there are of each kind, and name the first."""
        return "; ".join(
            f"{len(cases)} {kind}, the first is {cases[0]}" for kind, cases in self.faults.items()
        )


@dataclass(frozen=True)
class Release:
    """The images of the release, and the truth of those that have one; patientId -> ..."""

    image_paths: dict[str, Path]
    truths: dict[str, Truth]


def read_release(
    annotations_path: Path, images_dir: Path, *, n_workers: int, findings: Findings
) -> Release:
    """Read the annotations and the headers of all images, and join them.

    Args:
        n_workers: processes that read headers; 0 or 1 reads in this one.
        findings: gets all that is remarkable.

    Raises:
        ReleaseError: the JSON is something else, or there are no images.
    """
    annotated = read_annotations(annotations_path, findings)
    headers = _check_headers(read_headers(find_images(images_dir), n_workers), findings)
    known = {header.sop_uid for header in headers}
    findings.faults["annotated images without a usable file"] += sorted(set(annotated) - known)
    findings.remarks["images without annotation"] += len(known - set(annotated))
    truths = {header.patient_id: annotated.get(header.sop_uid) for header in headers}
    _drop_empty(findings)
    return Release(
        {header.patient_id: header.path for header in headers},
        {patient: truth for patient, truth in truths.items() if truth is not None},
    )


def read_annotations(path: Path, findings: Findings) -> dict[str, Truth | None]:
    """Read the MD.ai export.

    Returns:
        SOPInstanceUID -> truth; None where one of the image's annotations is faulty.

    Raises:
        ReleaseError: missing, or not of this form.
    """
    labels, annotations = _read_export(path)
    names: defaultdict[str, list[str]] = defaultdict(list)
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    faulty: set[str] = set()
    for number, annotation in enumerate(annotations):
        sop_uid = str(annotation.get("SOPInstanceUID") or "")
        group, name = labels.get(str(annotation.get("labelId")), (ADJUDICATED_GROUP, ""))
        if not sop_uid:
            findings.remarks["annotations without SOPInstanceUID"] += 1
            continue
        if group != ADJUDICATED_GROUP:
            findings.remarks[f"annotations of other label groups than {ADJUDICATED_GROUP}"] += 1
            continue
        names[sop_uid].append(name)
        fault = _find_fault(name, annotation)
        if fault:
            kind, detail = fault
            findings.faults[kind].append(f"annotation {number}, of image {sop_uid}: {detail}")
            faulty.add(sop_uid)
        elif box := _read_box(annotation.get("data")):
            boxes[sop_uid].append(box)
    return {
        sop_uid: None if sop_uid in faulty else _join(sop_uid, own, boxes[sop_uid], findings)
        for sop_uid, own in names.items()
    }


def _join(sop_uid: str, names: list[str], boxes: list[Box], findings: Findings) -> Truth | None:
    """Make one truth of an image's labels and boxes, which are without fault one by one."""
    if len(set(names)) > 1:
        found = " and ".join(sorted(set(names)))
        findings.faults["images with several labels"].append(f"{sop_uid}: {found}")
        return None
    unique = tuple(dict.fromkeys(boxes))
    findings.remarks["repeated annotations"] += len(names) - max(1, len(unique))
    return Truth(names[0], unique)


def _check_headers(headers: Iterable[Header | str], findings: Findings) -> list[Header]:
    """Leave out files that are no image of the challenge, or of which there are two."""
    readable: list[Header] = []
    for header in headers:
        if isinstance(header, str):
            findings.faults["files that are no readable DICOM image"].append(header)
        else:
            readable.append(header)
    usable = []
    patients = Counter(header.patient_id for header in readable)
    sop_uids = Counter(header.sop_uid for header in readable)
    for header in readable:
        size = (header.rows, header.columns)
        if patients[header.patient_id] > 1:
            kind, detail = "files that share a PatientID", f"PatientID {header.patient_id}"
        elif sop_uids[header.sop_uid] > 1:
            kind, detail = "files that share a SOPInstanceUID", f"SOPInstanceUID {header.sop_uid}"
        elif size != CHALLENGE_SIZE:
            kind, detail = "files not of {} x {} pixels".format(*CHALLENGE_SIZE), f"{size}"
        else:
            usable.append(header)
            continue
        findings.faults[kind].append(f"{header.path}: {detail}")
    return usable


def _read_export(path: Path) -> tuple[dict[str, tuple[str, str]], list[dict[str, Any]]]:
    """Return labelId -> (name of its group, name), and the annotations."""
    export = read_json(path, MAX_EXPORT_BYTES, ReleaseError)
    try:
        labels = {
            label["id"]: (group["name"], label["name"])
            for group in export["labelGroups"]
            for label in group["labels"]
        }
        annotations = export["datasets"][0]["annotations"]
    except (KeyError, IndexError, TypeError) as error:
        raise ReleaseError(
            f"{path}: not an MD.ai export with labelGroups[].labels[] and datasets[].annotations[]"
        ) from error
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise ReleaseError(f"{path}: datasets[0].annotations is not a list of objects")
    if ADJUDICATED_GROUP not in {group for group, _ in labels.values()}:
        raise ReleaseError(f"{path}: has no label group {ADJUDICATED_GROUP!r}")
    return labels, annotations


def _find_fault(name: str, annotation: dict[str, Any]) -> tuple[str, str] | None:
    """Say what is wrong with an annotation of the label `name`: the kind, and the case."""
    data = annotation.get("data")
    if name not in CLASS_NAMES:
        label = repr(name) if name else f"labelId {annotation.get('labelId')!r}"
        return "annotations of an unknown label", label
    box = _read_box(data)
    if (name == CLASS_NAMES[OPACITY]) != (box is not None) or (data and box is None):
        return "annotations whose label and data disagree", f"{name!r} with the data {data!r}"
    if box is not None:
        x, y, width, height = box
        rows, columns = CHALLENGE_SIZE
        if not (0 <= x < x + width <= columns and 0 <= y < y + height <= rows):
            return "boxes outside their image or without area", f"{data!r}"
    return None


def _read_box(data: object) -> Box | None:
    """Return x, y, width, height, or None where `data` is something else."""
    values = [data.get(side) for side in BOX_COLUMNS] if isinstance(data, dict) else []
    numbers = tuple(
        float(value)
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < ENDLESS
    )
    return numbers if len(numbers) == len(BOX_COLUMNS) else None


def _drop_empty(findings: Findings) -> None:
    for kind in [kind for kind, cases in findings.faults.items() if not cases]:
        del findings.faults[kind]
    findings.remarks += Counter()  # keeps what is positive
