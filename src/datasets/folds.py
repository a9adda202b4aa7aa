"""The split into folds, four of them by default, each class in equal parts (paper, section 5).

Made from the class file exactly as the published folds of stage 1 came out. As a command it
writes them: `python src/datasets/folds.py --data-dir DIR` puts folds.csv into the data folder.
Images of one patient, or of whatever a column of the label files says, never part.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from src.datasets.annotations import Record, read_folder_classes
from src.datasets.data_folder import DataFolder
from src.datasets.patient_groups import GROUP_COLUMN, read_groups
from src.datasets.tables import AnnotationsError, read_table, refuse_rows
from src.structures import CLASS_NAMES, MAX_FOLDS, N_FOLDS
from src.system.command_line import CommandParser, between, report_errors
from src.system.files import write_csv
from src.system.records import cut_text, show_value

FOLDS_SEED = 42  # gives the published folds


def make_folds(classes: Mapping[str, int], n_folds: int = N_FOLDS) -> dict[str, int]:
    """Split patients into folds that have the same share of each class.

    Differs from the original: it called scikit-learn of 2018, whose result current versions no
    longer give; the folds are the same. For each class in alphabetical order, 0..n-1 is shuffled
    by one generator and cut into parts, the first n % n_folds of them one longer; part k is fold k.

    Args:
        classes: patientId -> class, in the order of the class file.

    Returns:
        patientId -> fold, in the same order.
    """
    random = np.random.RandomState(FOLDS_SEED)
    patients = np.array(list(classes), dtype=object)
    categories = np.array(list(classes.values()))
    folds = np.zeros(len(patients), dtype=np.int64)
    for category in sorted(set(categories.tolist()), key=lambda c: CLASS_NAMES[c]):
        members = np.flatnonzero(categories == category)
        shuffled = np.arange(len(members))
        random.shuffle(shuffled)
        for fold, part in enumerate(np.array_split(shuffled, n_folds)):
            folds[members[part]] = fold
    return dict(zip(patients.tolist(), folds.tolist(), strict=True))


def make_grouped_folds(
    classes: Mapping[str, int], groups: Mapping[str, str], n_folds: int = N_FOLDS
) -> dict[str, int]:
    """Split patients into folds that no group of them parts, with about equal shares of each class.

    Large groups go first, those of one size in a shuffled order; each goes to the fold that has
    the least of its classes. Where no two patients share a group, these are the folds of
    `make_folds`.

    Args:
        classes: patientId -> class.
        groups: patientId -> its group; who has none, or "", is one of its own.

    Returns:
        patientId -> fold, in the order of `classes`.

    Raises:
        AnnotationsError: there are fewer groups than folds.
    """
    members: dict[tuple[str, bool], list[str]] = {}
    for patient in classes:
        group = groups.get(patient, "")
        members.setdefault((group or patient, bool(group)), []).append(patient)
    if len(members) < n_folds:
        raise AnnotationsError(
            f"{len(classes)} images of {len(members)} patients cannot make {n_folds} folds"
        )
    if len(members) == len(classes):
        return make_folds(classes, n_folds)
    counts = {key: np.bincount([classes[p] for p in own], minlength=len(CLASS_NAMES))
              for key, own in members.items()}  # fmt: skip
    weights = 1 / np.maximum(1, sum(counts.values())) ** 2
    keys = list(members)
    order = [keys[i] for i in np.random.RandomState(FOLDS_SEED).permutation(len(keys))]
    filled = np.zeros((n_folds, len(CLASS_NAMES)))
    folds: dict[str, int] = {}
    for key in sorted(order, key=lambda key: -len(members[key])):
        excess = filled @ (counts[key] * weights)
        fold = int(np.lexsort((filled.sum(axis=1), excess.round(12)))[0])
        filled[fold] += counts[key]
        folds |= dict.fromkeys(members[key], fold)
    return {patient: folds[patient] for patient in classes}


def read_folds(path: Path) -> dict[str, int]:
    """Read patientId and fold from a CSV with these columns.

    Raises:
        AnnotationsError: the file or a column is missing, or a fold is not a whole number.
    """
    table = read_table(path, ["patientId", "fold"])
    bad = ~table["fold"].str.fullmatch("[0-9]{1,9}")
    refuse_rows(path, table, bad, "fold {fold!r:.40} is not a whole number")
    folds = table.assign(fold=table["fold"].astype(int)).drop_duplicates(["patientId", "fold"])
    refuse_rows(path, folds, folds.duplicated("patientId"), "patient {patientId} is in two folds")
    return dict(zip(folds["patientId"], folds["fold"].tolist(), strict=True))


def load_folds(folder: DataFolder, records: Sequence[Record] | None = None) -> dict[str, int]:
    """Read the data folder's folds.csv if there is one; otherwise make the folds.

    Args:
        records: of `read_records`, which say the groups; None reads these from the folder.

    Raises:
        AnnotationsError: a table is wrong, or the file puts images of one group into two folds.
    """
    if records is None:
        groups = read_groups(folder)
    else:
        groups = {record.patient_id: record.group_id for record in records}
    if not folder.folds_path.exists():
        return make_grouped_folds(read_folder_classes(folder), groups)
    folds = read_folds(folder.folds_path)
    _refuse_parted_groups(folder.folds_path, folds, groups)
    return folds


def _refuse_parted_groups(path: Path, folds: Mapping[str, int], groups: Mapping[str, str]) -> None:
    first_of: dict[str, str] = {}
    for patient, fold in folds.items():
        group = groups.get(patient, "")
        first = first_of.setdefault(group, patient)
        if group and folds[first] != fold:
            raise AnnotationsError(
                f"{path}: images {cut_text(first)} and {cut_text(patient)} of group "
                f"{show_value(group)} are in folds {folds[first]} and {fold}; images of one group "
                f"must be in one fold"
            )


def split_records(
    records: list[Record], folds: Mapping[str, int], fold: int
) -> tuple[list[Record], list[Record]]:
    """Divide records into those to train on and those of `fold`, for validation.

    Raises:
        AnnotationsError: a patient has no fold, there is no such fold, or nothing is left to
            train on.
    """
    lost = [record.patient_id for record in records if record.patient_id not in folds]
    if lost:
        raise AnnotationsError(
            f"{len(lost)} patients have no fold, the first is {cut_text(lost[0])}"
        )
    train = [record for record in records if folds[record.patient_id] != fold]
    valid = [record for record in records if folds[record.patient_id] == fold]
    if not valid:
        known = sorted({folds[record.patient_id] for record in records})
        raise AnnotationsError(f"fold {fold} has no images; there are {show_value(known)}")
    if not train:
        raise AnnotationsError(f"fold {fold} holds every image: nothing is left to train on")
    _warn_of_one_kind(train, f"no image to train on for fold {fold}", "the detector learns nothing")
    _warn_of_one_kind(valid, f"no image of fold {fold}", "the score cannot tell much")
    return train, valid


def _warn_of_one_kind(records: list[Record], none: str, effect: str) -> None:
    """Warn of a set without a single box, and of one without an image that has none."""
    n_with_boxes = sum(len(record.boxes_xywh) > 0 for record in records)
    if n_with_boxes == 0:
        warnings.warn(f"{none} has a box: {effect}", stacklevel=3)
    if n_with_boxes == len(records):
        warnings.warn(f"{none} is without a box: {effect} of false alarms", stacklevel=3)


def write_folds(
    path: Path,
    classes: Mapping[str, int],
    folds: Mapping[str, int],
    groups: Mapping[str, str] | None = None,
) -> None:
    """Write patientId, class, fold, the columns of the published file, and the groups if any."""
    header = ("patientId", "class", "fold", GROUP_COLUMN)
    rows = (
        (patient, CLASS_NAMES[classes[patient]], fold, (groups or {}).get(patient, ""))
        for patient, fold in folds.items()
    )
    n_columns = len(header) if groups else len(header) - 1
    write_csv(path, header[:n_columns], (row[:n_columns] for row in rows))


def main() -> None:
    import config

    parser = CommandParser("Write folds.csv into a data folder.")
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    parser.add_argument("--n-folds", type=between(2, MAX_FOLDS), default=N_FOLDS)
    parser.add_argument(
        "--group-column",
        help=f"column that says which images belong to one patient (default: {GROUP_COLUMN}, if "
        "the labels or the class file have it)",
    )
    arguments = parser.parse_args()
    with report_errors():
        folder = DataFolder(arguments.data_dir)
        if folder.folds_path.exists():
            raise AnnotationsError(f"{folder.folds_path}: is there already; it is not replaced")
        classes = read_folder_classes(folder)
        groups = read_groups(folder, arguments.group_column)
        folds = make_grouped_folds(classes, groups, arguments.n_folds)
        sizes = [list(folds.values()).count(fold) for fold in range(arguments.n_folds)]
        if 0 in sizes:
            raise AnnotationsError(
                f"{folder.root}: folds of {sizes} images: fold {sizes.index(0)} is empty; take "
                f"fewer by --n-folds"
            )
        write_folds(folder.folds_path, classes, folds, groups)
        print(f"{folder.folds_path}: {len(folds)} patients in folds of {sizes}")


if __name__ == "__main__":
    main()
