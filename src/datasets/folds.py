"""The split into four folds, each class in equal parts (paper, section 5).

Made from the class file exactly as the published folds of stage 1 came out. As a command it
writes them: `python src/datasets/folds.py --data-dir DIR` puts folds.csv into the data folder.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from src.datasets.annotations import Record, read_classes
from src.datasets.data_folder import DataFolder
from src.datasets.tables import AnnotationsError, read_table, refuse_rows
from src.structures import CLASS_NAMES, N_FOLDS
from src.system.command_line import CommandParser, report_errors
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


def load_folds(folder: DataFolder) -> dict[str, int]:
    """Read the data folder's folds.csv if there is one; otherwise make the folds."""
    if folder.folds_path.exists():
        return read_folds(folder.folds_path)
    return make_folds(read_classes(folder.classes_path))


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
    return train, valid


def write_folds(path: Path, classes: Mapping[str, int], folds: Mapping[str, int]) -> None:
    """Write patientId, class, fold, the columns of the published file."""
    rows = ((patient, CLASS_NAMES[classes[patient]], fold) for patient, fold in folds.items())
    write_csv(path, ("patientId", "class", "fold"), rows)


def main() -> None:
    import config

    parser = CommandParser("Write folds.csv into a data folder.")
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    arguments = parser.parse_args()
    with report_errors():
        folder = DataFolder(arguments.data_dir)
        if folder.folds_path.exists():
            raise AnnotationsError(f"{folder.folds_path}: is there already; it is not replaced")
        folder.check()
        classes = read_classes(folder.classes_path)
        folds = make_folds(classes)
        write_folds(folder.folds_path, classes, folds)
        sizes = [list(folds.values()).count(fold) for fold in range(N_FOLDS)]
        print(f"{folder.folds_path}: {len(folds)} patients in folds of {sizes}")


if __name__ == "__main__":
    main()
