"""Bring RSNA's own release into the layout of Kaggle's archive; command line.

    python scripts/import_rsna_release.py --images DIR --out data \
        --annotations pneumonia-challenge-annotations-adjudicated-kaggle_2018.json

RSNA publishes images and annotations without Kaggle; facts of its form: `scripts/rsna_release.py`.
The images are linked under the names that the challenge gave them, not copied. All that are
labelled become the training set. With Kaggle's stage 2 labels and classes, which the release does
not hold, those patients are the training set and the others the test set, with their truth: the
leaderboard can then be scored (`src/challenge/leaderboard.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.system.command_line import CommandParser, natural, report_errors
from src.system.errors import InputError
from src.system.files import real_path, write_csv

if TYPE_CHECKING:  # `--help` waits for nothing
    from scripts.rsna_release import Release, Truth
    from src.datasets.annotations import Record

LABEL_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
CLASS_COLUMNS = ("patientId", "class")
SAMPLE_COLUMNS = ("patientId", "PredictionString")
SAMPLE_STRING = "0.5 0 0 100 100"  # Kaggle's
TRAIN_LABELS = "stage_2_train_labels.csv"
TRAIN_CLASSES = "stage_2_detailed_class_info.csv"
TEST_LABELS = "stage_2_test_labels.csv"
TEST_SAMPLE = "stage_2_sample_submission.csv"
MAX_ROUNDING = 1.0  # pixels; Kaggle's boxes are whole numbers


@dataclass(frozen=True)
class KaggleTables:
    """The labels of Kaggle's stage 2 training images: the files, and what they say."""

    labels_path: Path
    classes_path: Path
    records: list[Record]


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        from scripts.rsna_release import Findings, ReleaseError, read_release

        out_dir = real_path(arguments.out)
        _check_place(out_dir, arguments.images)
        kaggle = _read_kaggle_tables(arguments.kaggle_labels, arguments.kaggle_classes)
        findings = Findings()
        release = read_release(
            arguments.annotations,
            arguments.images,
            n_workers=arguments.num_workers,
            findings=findings,
        )
        for remark, count in findings.remarks.items():
            _warn(f"{count} {remark}: left out")
        if findings.faults and not arguments.skip_faulty:
            raise ReleaseError(f"{findings.summarise_faults()}; --skip-faulty leaves them out")
        if findings.faults:
            _warn(f"left out: {findings.summarise_faults()}")
        _build(out_dir, release, kaggle)
        _describe(out_dir)


def _check_place(out_dir: Path, images_dir: Path) -> None:
    """Refuse what could not be made in one step."""
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise InputError(f"{out_dir}: is there already; --out takes a new folder")
    if out_dir.is_mount():
        raise InputError(f"{out_dir}: is a mount point; give a folder inside it")
    if out_dir.is_relative_to(real_path(images_dir)):
        raise InputError(f"{out_dir}: lies among the images; --out takes a folder elsewhere")


def _read_kaggle_tables(labels_path: Path | None, classes_path: Path | None) -> KaggleTables | None:
    from src.datasets.annotations import read_label_files

    if labels_path is None and classes_path is None:
        return None
    if labels_path is None or classes_path is None:
        raise InputError("--kaggle-labels and --kaggle-classes go together; one is missing")
    return KaggleTables(labels_path, classes_path, read_label_files(labels_path, classes_path))


def _build(out_dir: Path, release: Release, kaggle: KaggleTables | None) -> None:
    """Make everything beside the folder, then give it its name."""
    from src.system.files import new_folder

    with new_folder(out_dir) as folder:
        if kaggle is None:
            _make_train_set(folder, release)
        else:
            _make_both_sets(folder, release, kaggle)


def _make_train_set(folder: Path, release: Release) -> None:
    """Make a training set of all that is labelled."""
    from scripts.rsna_release import ReleaseError

    patients = sorted(release.truths)
    if not patients:
        raise ReleaseError("no image has an annotation that can be used")
    _link_images(folder / "stage_2_train_images", release, patients)
    truths = [(patient, release.truths[patient]) for patient in patients]
    rows = [row for patient, truth in truths for row in _label_rows(patient, truth)]
    write_csv(folder / TRAIN_LABELS, LABEL_COLUMNS, rows)
    classes = [
        (patient, truth.class_name)
        for patient, truth in truths
        for _ in _label_rows(patient, truth)  # as many rows as there are of labels, as Kaggle has
    ]
    write_csv(folder / TRAIN_CLASSES, CLASS_COLUMNS, classes)


def _make_both_sets(folder: Path, release: Release, kaggle: KaggleTables) -> None:
    """Make Kaggle's training set, and a test set of all other labelled images, with its truth."""
    from scripts.rsna_release import ReleaseError

    train = [record.patient_id for record in kaggle.records]
    missing = [patient for patient in train if patient not in release.image_paths]
    if missing:
        raise ReleaseError(
            f"{kaggle.labels_path}: {len(missing)} of {len(train)} patients have no usable image "
            f"in the release, the first is {missing[0]}"
        )
    test = sorted(set(release.truths) - set(train))
    if not test:
        raise ReleaseError(f"{kaggle.labels_path}: names all labelled images: none is left to test")
    _compare_truths(release, kaggle)
    _link_images(folder / "stage_2_train_images", release, train)
    shutil.copyfile(kaggle.labels_path, folder / TRAIN_LABELS)
    shutil.copyfile(kaggle.classes_path, folder / TRAIN_CLASSES)
    _link_images(folder / "stage_2_test_images", release, test)
    truths = [(patient, release.truths[patient]) for patient in test]
    rows = [(*row, truth.class_name) for p, truth in truths for row in _label_rows(p, truth)]
    write_csv(folder / TEST_LABELS, (*LABEL_COLUMNS, "class"), rows)
    write_csv(folder / TEST_SAMPLE, SAMPLE_COLUMNS, [(p, SAMPLE_STRING) for p in test])


def _compare_truths(release: Release, kaggle: KaggleTables) -> None:
    """Warn where the release and Kaggle say different things of a training image."""
    different = [
        record.patient_id
        for record in kaggle.records
        if record.patient_id in release.truths
        and not _agrees(release.truths[record.patient_id], record)
    ]
    if different:
        _warn(
            f"{len(different)} training images are labelled otherwise in {kaggle.labels_path} "
            f"than in the release, the first is {different[0]}; Kaggle's labels are taken"
        )


def _agrees(truth: Truth, record: Record) -> bool:
    import numpy as np

    from src.structures import CLASS_NAMES

    if CLASS_NAMES[record.category] != truth.class_name:
        return False
    ours, theirs = sorted(truth.boxes_xywh), sorted(map(tuple, record.boxes_xywh))
    return len(ours) == len(theirs) and (
        not ours or bool(np.abs(np.subtract(ours, theirs)).max() <= MAX_ROUNDING)
    )


def _link_images(folder: Path, release: Release, patients: Iterable[str]) -> None:
    folder.mkdir()
    for patient in patients:
        (folder / f"{patient}.dcm").symlink_to(release.image_paths[patient])


def _label_rows(patient: str, truth: Truth) -> list[tuple[object, ...]]:
    if not truth.boxes_xywh:
        return [(patient, "", "", "", "", 0)]
    return [(patient, *box, 1) for box in truth.boxes_xywh]


def _warn(text: str) -> None:
    print(f"warning: {' '.join(text.split())}", file=sys.stderr)


def _describe(out_dir: Path) -> None:
    print(out_dir)
    for path in sorted(out_dir.iterdir()):
        print(f"  {path.name}" + (f"/ {len(list(path.iterdir()))} links" if path.is_dir() else ""))


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser("Bring RSNA's own release into the layout of Kaggle's archive.")
    add = parser.add_argument
    add("--annotations", type=Path, required=True, help="the release's JSON file")
    add("--images", type=Path, required=True, help="the release's folder of DICOM files, nested")
    add("--out", type=Path, required=True, help="the data folder to make; new or empty")
    add("--kaggle-labels", type=Path, help=f"Kaggle's {TRAIN_LABELS}: tells train from test")
    add("--kaggle-classes", type=Path, help=f"Kaggle's {TRAIN_CLASSES}, goes with it")
    add("--skip-faulty", action="store_true", help="leave out images with a fault")
    workers = min(4, os.cpu_count() or 1)
    add("--num-workers", type=natural, default=workers, help="processes; 0: this one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
