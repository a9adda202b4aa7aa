"""Check a data folder before a training uses it: labels, folds, and every image."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from src.datasets.annotations import Record, read_records
from src.datasets.box_limits import leaves_image
from src.datasets.data_folder import DataFolder, describe_missing
from src.datasets.folds import load_folds, split_records
from src.datasets.tables import AnnotationsError, read_sample_ids
from src.radiographs.header_groups import HeaderGroups
from src.radiographs.image_facts import ExaminedImage, examine_images
from src.radiographs.image_index import ImageFile, as_text, describe_clash, index_images
from src.system.errors import InputError
from src.system.files import write_csv
from src.system.texts import printable

# kind -> what it means; a training fails if there is one of the first
FATAL = {
    "no labels": "the label files cannot be read",
    "no folds": "the folds cannot be used, or lack the validation fold",
    "no image": "a labelled patient has no image",
    "several images": "several image files for one labelled patient",
    "unreadable": "a labelled image cannot be read",
    "box outside": "a box leaves its image",
}
KINDS = FATAL | {
    "leak": "the same pixels in two folds, or in training and test images",
    "same patient": "the same PatientID in two folds, or in training and test images",
    "duplicate": "the same pixels twice among the images of one fold, or of none",
    "unlabelled": "a training image has no labels",
    "left out": "a link, file or folder that cannot be used",
    "grey values": "an image leaves a detector little to see; only --full looks",
    "odd size": "an image has another size than most",
    "other patient": "the PatientID in the header is not the file's name",
    "no test image": "a patient of the sample submission has no image",
    "unreadable, not trained on": "an image that no training needs cannot be read",
}
NO_FOLD = "no fold"


class Finding(NamedTuple):
    """A fault, or something unusual, in a data folder; its kind is a key of `KINDS`."""

    kind: str
    patient: str
    file: str
    detail: str


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What was seen in a data folder.

    Attributes:
        findings: faults and what is unusual, in the order of `KINDS`.
        images: of training and test.
    """

    findings: list[Finding]
    images: list[ExaminedImage]

    def groups(self) -> Iterator[tuple[str, ...]]:
        """Yield a row for each image whose header sorts it: its id, and its `HeaderGroups`."""
        for image in self.images:
            if image.facts is not None and any(image.facts.groups):
                yield image.id, *image.facts.groups


def check_data_folder(
    folder: DataFolder, fold: int, *, full: bool = False, n_workers: int | None = None
) -> DataCheck:
    """Look through a data folder for faults and what is unusual.

    Args:
        fold: the validation fold of the training that is planned.
        full: decode every image.
        n_workers: processes that read images, as for `examine_images`.

    Raises:
        AnnotationsError: there is no folder of training images at all.
    """
    findings: list[Finding] = []
    records, folds = _read_labels(folder, fold, findings)
    images_dir = folder.images_dir("train")
    labelled = {record.patient_id for record in records}
    train_files = _find_files(images_dir, labelled, findings)
    sample_ids = _read_sample(folder.sample_submission_path, findings)
    test_files = _find_test_files(folder, sample_ids, findings)
    images = list(examine_images([*train_files, *test_files], full=full, n_workers=n_workers))
    train, test = images[: len(train_files)], images[len(train_files) :]
    findings += _compare_labels(train, labelled, images_dir)
    findings += _compare_sample(test, sample_ids, folder.sample_submission_path)
    findings += _compare_boxes(train, records)
    findings += _compare_headers(images)
    placed = [(image, _place_of(image, folds)) for image in train]
    placed += [(image, "a test image") for image in test]
    findings += _find_duplicates(placed)
    findings += _find_same_patients(placed)
    order = list(KINDS)
    findings.sort(key=lambda found: (order.index(found.kind), found.patient))
    return DataCheck(findings, images)


def verdict(findings: Iterable[Finding], fold: int) -> tuple[bool, str]:
    """Say in a line whether a training would run, and if not, why."""
    counts = Counter(found.kind for found in findings if found.kind in FATAL)
    if not counts:
        return True, f"a training of fold {fold} would run"
    causes = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return False, f"a training of fold {fold} would fail: {causes}"


def describe(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a table of what was found: kind, count, meaning, and the first case below."""
    counts = Counter(found.kind for found in findings)
    first = {found.kind: found for found in reversed(findings)}
    width = max(map(len, KINDS))
    for kind, meaning in KINDS.items():
        yield f"{kind:{width}} {counts[kind]:6}  {meaning}"
        if kind in first:
            found = first[kind]
            parts = [part for part in (found.file or found.patient, found.detail) if part]
            yield f"{'':{width}}         {printable(': '.join(parts))}"


def write_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Write a row for each finding, whole or not at all."""
    write_csv(path, Finding._fields, findings)


def write_groups(path: Path, groups: Iterable[tuple[str, ...]]) -> None:
    """Write a row for each image, whole or not at all: a table for `scores.py --groups`."""
    write_csv(path, ("patientId", *HeaderGroups._fields), groups)


def _find_files(
    images_dir: Path, named: Collection[str], findings: list[Finding]
) -> list[ImageFile]:
    """List the images of a folder; what cannot be used, and clashes of ids, become findings."""
    try:
        index = index_images(images_dir)
    except InputError:  # no images: then every labelled patient lacks one
        return []
    for path, cause in index.left_out:
        shown = as_text(str(path))
        findings.append(Finding("left out", "", shown, cause.removeprefix(f"{shown}: ")))
    files = []
    for patient, names in index.group(named).items():
        files += [ImageFile(patient, images_dir / name) for name in names]
        if len(names) > 1 and (patient in named or not named):
            place = str(images_dir / names[1])
            detail = describe_clash(patient, names)
            findings.append(Finding("several images", patient, place, detail))
    return sorted(files, key=lambda file: file.path)


def _find_test_files(
    folder: DataFolder, named: Collection[str], findings: list[Finding]
) -> list[ImageFile]:
    try:
        images_dir = folder.images_dir("test")
    except AnnotationsError:  # a training needs no test images
        return []
    return _find_files(images_dir, named, findings)


def _read_sample(path: Path, findings: list[Finding]) -> list[str]:
    """Read the patients of the sample submission, if there is one."""
    if not path.exists():
        return []
    try:
        return read_sample_ids(path)
    except AnnotationsError as error:
        findings.append(
            Finding("no test image", "", str(path), f"not a sample submission: {error}")
        )
        return []


def _read_labels(
    folder: DataFolder, fold: int, findings: list[Finding]
) -> tuple[list[Record], Mapping[str, int]]:
    """Read labels and folds as a training does; a failure becomes a finding."""
    try:
        records = read_records(folder)
    except AnnotationsError as error:
        findings.append(Finding("no labels", "", "", str(error)))
        return [], {}
    try:
        folds = load_folds(folder, records)
        split_records(records, folds, fold)
    except AnnotationsError as error:
        findings.append(Finding("no folds", "", "", str(error)))
        return records, {}
    return records, folds


def _compare_labels(
    images: Sequence[ExaminedImage], labelled: Collection[str], images_dir: Path
) -> Iterator[Finding]:
    """Compare the training images with the labelled patients."""
    for patient in set(labelled) - {image.id for image in images}:
        missing = describe_missing(images_dir, patient)
        path = f"{images_dir / patient}.dcm"
        yield Finding("no image", patient, path, missing.removeprefix(f"{path}: "))
    for image in images:
        is_labelled = image.id in labelled
        if labelled and not is_labelled:
            yield _finding("unlabelled", image, "its name is no labelled patient's")
        if image.facts is None:
            kind = "unreadable" if is_labelled else "unreadable, not trained on"
            yield _finding(kind, image, image.cause)


def _compare_sample(
    images: Sequence[ExaminedImage], patients: Sequence[str], path: Path
) -> Iterator[Finding]:
    """Compare the test images with the patients of the sample submission."""
    for image in images:
        if image.facts is None:
            yield _finding("unreadable, not trained on", image, image.cause)
    for patient in set(patients) - {image.id for image in images}:
        yield Finding("no test image", patient, str(path), "the sample submission names it")


def _compare_boxes(images: Sequence[ExaminedImage], records: Sequence[Record]) -> Iterator[Finding]:
    """Check boxes against the size of their own image."""
    boxes = {record.patient_id: record.boxes_xywh for record in records}
    for image in images:
        own = boxes.get(image.id)
        if own is None or image.facts is None:
            continue
        for x, y, width, height in own[leaves_image(own, (image.facts.columns, image.facts.rows))]:
            box = f"x {x:g}, y {y:g}, width {width:g}, height {height:g}"
            yield _finding("box outside", image, f"{box}, of {image.facts.size}")


def _compare_headers(images: Sequence[ExaminedImage]) -> Iterator[Finding]:
    """Find images with odd grey values, of another size than most, or with another's PatientID."""
    sizes = Counter(image.facts.size for image in images if image.facts is not None)
    usual = sizes.most_common(1)[0][0] if sizes else ""
    for image in images:
        if image.facts is None:
            continue
        if image.facts.size != usual:
            yield _finding("odd size", image, f"{image.facts.size}; most are {usual}")
        for odd in image.odd:
            yield _finding("grey values", image, odd)
        if image.facts.patient_id not in ("", image.id, *image.id.split("/")):
            yield _finding("other patient", image, f"PatientID {image.facts.patient_id!r:.80}")


def _place_of(image: ExaminedImage, folds: Mapping[str, int]) -> str:
    return f"fold {folds[image.id]}" if image.id in folds else NO_FOLD


def _find_duplicates(placed: Iterable[tuple[ExaminedImage, str]]) -> Iterator[Finding]:
    """Find images with the same stored pixels; each is reported except the first of a group."""
    same: defaultdict[str, list[tuple[ExaminedImage, str]]] = defaultdict(list)
    for image, place in placed:
        if image.facts is not None:
            same[image.facts.pixel_digest].append((image, place))
    for group in same.values():
        (first, first_place), *others = group
        is_leak = len({place for _, place in group} - {NO_FOLD}) > 1
        for image, place in others:
            detail = f"{place}; the same pixels as {first.path.name}, {first_place}"
            yield _finding("leak" if is_leak else "duplicate", image, detail)


def _find_same_patients(placed: Sequence[tuple[ExaminedImage, str]]) -> Iterator[Finding]:
    """Find images whose PatientID an image in another fold, or among the test images, has too.

    An ID of most images is no patient's: it is what was written in place of all IDs.
    """
    same: defaultdict[str, list[tuple[ExaminedImage, str]]] = defaultdict(list)
    for image, place in placed:
        patient = "" if image.facts is None else image.facts.patient_id.strip()
        if patient and place != NO_FOLD:
            same[patient].append((image, place))
    for patient, group in same.items():
        (first, first_place), *others = group
        for image, place in others:
            if place != first_place and len(group) <= len(placed) / 2:
                detail = f"{place}; PatientID {patient!r:.80} as {first.path.name}, {first_place}"
                yield _finding("same patient", image, detail)


def _finding(kind: str, image: ExaminedImage, detail: str) -> Finding:
    return Finding(kind, *map(as_text, (image.id, str(image.path), detail)))
