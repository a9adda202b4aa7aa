import csv
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from src.datasets import folds as folds_module
from src.datasets.annotations import Record, read_classes
from src.datasets.data_folder import DataFolder
from src.datasets.folds import load_folds, make_folds, read_folds, split_records, write_folds
from src.datasets.tables import AnnotationsError
from src.structures import CLASS_NAMES
from tests.paths import shared

SCRIPT = folds_module.__file__


def mixed_classes(n=103):
    """Return patients of all three classes, mixed."""
    rng = np.random.default_rng(2)
    return {f"p{i:03}": int(rng.choice(3, p=[0.5, 0.3, 0.2])) for i in range(n)}


def write_class_file(folder, classes):
    lines = [f"{patient},{CLASS_NAMES[category]}" for patient, category in classes.items()]
    path = folder / "stage_2_detailed_class_info.csv"
    path.write_text("\n".join(["patientId,class", *lines]) + "\n")
    return path


def make_records(patients):
    return [Record(patient, 1, np.zeros((0, 4))) for patient in patients]


def run_folds(*arguments, cwd):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )


# make_folds


def test_make_folds_gives_the_published_folds():
    folder = shared("annotations")
    with (folder / "folds.csv").open(newline="") as file:
        published = {row["patientId"]: int(row["fold"]) for row in csv.DictReader(file)}
    assert len(published) == 25_684
    made = make_folds(read_classes(folder / "stage_1_detailed_class_info.csv"))
    assert made == published
    assert sorted(Counter(made.values()).values()) == [6420, 6421, 6421, 6422]


def test_make_folds_deals_each_class_out_evenly():
    classes = mixed_classes()
    folds = make_folds(classes)
    for category in range(3):
        members = [patient for patient in classes if classes[patient] == category]
        counts = Counter(folds[patient] for patient in members)
        whole, rest = divmod(len(members), 4)
        assert [counts[k] for k in range(4)] == [whole + (k < rest) for k in range(4)]


def test_make_folds_shuffles_each_class_from_one_stream():
    classes = mixed_classes(50)
    random = np.random.RandomState(42)
    expected: dict[str, int] = {}
    for category in sorted(range(3), key=CLASS_NAMES.__getitem__):
        members = [patient for patient in classes if classes[patient] == category]
        order = random.permutation(len(members)).tolist()
        for fold in range(4):
            n = len(members) // 4 + (fold < len(members) % 4)
            expected |= {members[order.pop(0)]: fold for _ in range(n)}
    assert make_folds(classes) == expected


def test_make_folds_keeps_the_order_of_patients():
    classes = mixed_classes()
    assert list(make_folds(classes)) == list(classes)


def test_make_folds_takes_another_number_of_folds():
    assert Counter(make_folds(dict.fromkeys("abcdefghij", 1), 5).values()) == dict.fromkeys(
        range(5), 2
    )


# Reading and writing


def test_read_folds_reads_what_write_folds_wrote(tmp_path):
    classes = mixed_classes()
    folds = make_folds(classes)
    write_folds(tmp_path / "folds.csv", classes, folds)
    assert read_folds(tmp_path / "folds.csv") == folds


def test_write_folds_writes_the_published_file(tmp_path):
    published = shared("annotations") / "folds.csv"
    classes = read_classes(shared("annotations") / "stage_1_detailed_class_info.csv")
    write_folds(tmp_path / "folds.csv", classes, make_folds(classes))
    assert (tmp_path / "folds.csv").read_text() == published.read_text()


def test_read_folds_reads_a_byte_order_mark(tmp_path):
    path = tmp_path / "folds.csv"
    path.write_bytes(b"\xef\xbb\xbfpatientId,fold\na,1\n")
    assert read_folds(path) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "not a readable CSV file"),
        ("patientId,fold\n", "has no rows"),
        ("patientId,part\na,0\n", "has no column fold; needs patientId, fold"),
        ("patientId,fold,fold\na,0,1\n", "has two columns fold"),
        ("patientId,fold\na,0\nb,x\n", "line 3: fold 'x' is not a whole number"),
        ("patientId,fold\na,0\nb,\n", "line 3: fold '' is not a whole number"),
        ("patientId,fold\na,-1\n", "line 2: fold '-1' is not a whole number"),
        ("patientId,fold\na,1.0\n", "line 2: fold '1.0' is not a whole number"),
        ("patientId,fold\na\n", "line 2: fold"),
        ("patientId,fold\na," + "9" * 5000 + "\n", f"line 2: fold '{'9' * 39} is not"),
        ("patientId,fold\na,²\n", "line 2: fold '²' is not a whole number"),
        ("patientId,fold\na,0\na,1\n", "line 3: patient a is in two folds"),
        ("patientId,fold\na,0\n\n\nb,x\n", "line 5: fold 'x' is not a whole number"),
    ],
)
def test_read_folds_refuses(tmp_path, text, cause):
    path = tmp_path / "folds.csv"
    path.write_text(text)
    with pytest.raises(AnnotationsError) as caught:
        read_folds(path)
    assert f"{path}: {cause}" in str(caught.value)


def test_read_folds_refuses_a_binary_file(tmp_path):
    (tmp_path / "folds.csv").write_bytes(bytes(range(256)))
    with pytest.raises(AnnotationsError, match=r"folds\.csv"):
        read_folds(tmp_path / "folds.csv")


def test_read_folds_refuses_a_missing_file(tmp_path):
    with pytest.raises(AnnotationsError, match=r"folds\.csv: no such file"):
        read_folds(tmp_path / "folds.csv")


def test_load_folds_prefers_the_file(tmp_path):
    classes = mixed_classes()
    write_class_file(tmp_path, classes)
    write_folds(tmp_path / "folds.csv", classes, dict.fromkeys(classes, 7))
    assert load_folds(DataFolder(tmp_path)) == dict.fromkeys(classes, 7)


def test_load_folds_makes_them_without_a_file(tmp_path):
    classes = mixed_classes()
    write_class_file(tmp_path, classes)
    assert load_folds(DataFolder(tmp_path)) == make_folds(classes)
    assert not (tmp_path / "folds.csv").exists()


# split_records


def test_split_records_parts_validation_from_training():
    records = make_records("abcd")
    train, valid = split_records(records, {"a": 0, "b": 1, "c": 2, "d": 1, "other": 3}, 1)
    assert [record.patient_id for record in train] == ["a", "c"]
    assert [record.patient_id for record in valid] == ["b", "d"]


@pytest.mark.parametrize(
    ("folds", "fold", "cause"),
    [
        ({"a": 0}, 0, "2 patients have no fold, the first is b"),
        ({"a": 0, "b": 1, "c": 1}, 4, r"fold 4 has no images; there are \[0, 1\]"),
        ({"a": 2, "b": 2, "c": 2}, 2, "fold 2 holds every image"),
    ],
)
def test_split_records_refuses(folds, fold, cause):
    with pytest.raises(AnnotationsError, match=cause):
        split_records(make_records("abc"), folds, fold)


# The command


def test_folds_command_writes_the_file_from_another_directory(tmp_path):
    data_dir = tmp_path / "data folder"
    data_dir.mkdir()
    classes = mixed_classes()
    write_class_file(data_dir, classes)
    result = run_folds("--data-dir", data_dir.name, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert read_folds(data_dir / "folds.csv") == make_folds(classes)
    assert f"{len(classes)} patients" in result.stdout
    assert sorted(path.name for path in data_dir.iterdir()) == [
        "folds.csv",
        "stage_2_detailed_class_info.csv",
    ]


def test_folds_command_does_not_overwrite(tmp_path):
    write_class_file(tmp_path, mixed_classes())
    (tmp_path / "folds.csv").write_text("mine")
    result = run_folds("--data-dir", tmp_path, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"error: {tmp_path / 'folds.csv'}: is there already; it is not replaced"
    ]
    assert (tmp_path / "folds.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--data-dir", "none"], "none: no such data folder"),
        (["--folder", "."], "unrecognized arguments"),
    ],
)
def test_folds_command_reports_a_mistake_in_one_line(tmp_path, arguments, cause):
    result = run_folds(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert cause in line
    assert not list(tmp_path.iterdir())
