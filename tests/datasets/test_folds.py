import csv
import subprocess
import sys
import warnings
from collections import Counter

import numpy as np
import pytest

from src.datasets import folds as folds_module
from src.datasets.annotations import Record, read_classes, read_records
from src.datasets.data_folder import DataFolder
from src.datasets.folds import (
    load_folds,
    make_folds,
    make_grouped_folds,
    read_folds,
    split_records,
    write_folds,
)
from src.datasets.patient_groups import read_groups
from src.datasets.tables import AnnotationsError
from src.structures import CLASS_NAMES, NORMAL, OPACITY
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


# make_grouped_folds


def grouped_classes(n=300):
    """Return classes, and groups of 1 to 9 images, most of them of one class."""
    rng = np.random.default_rng(5)
    classes: dict[str, int] = {}
    groups: dict[str, str] = {}
    while len(classes) < n:
        size, category, name = int(rng.integers(1, 10)), int(rng.choice(3)), f"g{len(classes)}"
        for _ in range(size):
            patient = f"p{len(classes):03}"
            classes[patient] = category if rng.uniform() < 0.7 else NORMAL
            groups[patient] = name
    return classes, groups


@pytest.mark.parametrize("n_folds", [2, 4, 5, 20])
def test_make_grouped_folds_parts_no_group(n_folds):
    classes, groups = grouped_classes()
    folds = make_grouped_folds(classes, groups, n_folds)
    assert list(folds) == list(classes)
    assert set(folds.values()) == set(range(n_folds))
    of_group: dict[str, set[int]] = {}
    for patient, fold in folds.items():
        of_group.setdefault(groups[patient], set()).add(fold)
    assert {len(each) for each in of_group.values()} == {1}


def test_make_grouped_folds_gives_each_fold_its_part_of_each_class():
    classes, groups = grouped_classes(3000)
    folds = make_grouped_folds(classes, groups, 5)
    for category in range(3):
        counts = Counter(folds[p] for p in classes if classes[p] == category)
        share = sum(counts.values()) / 5
        assert all(abs(counts[fold] - share) < 0.05 * share for fold in range(5))


def test_make_grouped_folds_of_single_images_are_the_published_ones():
    classes = mixed_classes()
    assert make_grouped_folds(classes, {}) == make_folds(classes)
    assert make_grouped_folds(classes, {p: f"of {p}" for p in classes}) == make_folds(classes)


def test_make_grouped_folds_keeps_images_without_group_apart():
    classes = mixed_classes(40)
    groups = dict.fromkeys(classes, "") | {"p000": "p003", "p001": "p003"}
    folds = make_grouped_folds(classes, groups)
    assert folds["p000"] == folds["p001"]
    assert sorted(Counter(folds.values()).values()) == [10, 10, 10, 10]


def test_make_grouped_folds_needs_a_group_for_each_fold():
    with pytest.raises(AnnotationsError, match="9 images of 2 patients cannot make 4 folds"):
        make_grouped_folds(dict.fromkeys("abcdefghi", 1), dict.fromkeys("abcdefgh", "one"))


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
        ("patientId,part\na,0\n", "has no column fold; it has patientId, part"),
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


@pytest.mark.parametrize("in_folds", [False, True])
def test_load_folds_refuses_a_file_that_parts_a_group(tmp_path, in_folds):
    classes, groups = write_grouped_labels(tmp_path, "groupId")
    folds = make_grouped_folds(classes, groups)
    first, other = [patient for patient in classes if groups[patient] == groups["p010"]][:2]
    folds[other] = (folds[first] + 1) % 4
    path = tmp_path / "folds.csv"
    write_folds(path, classes, folds, groups if in_folds else None)
    folder = DataFolder(tmp_path)
    for records in (None, read_records(folder)):
        with pytest.raises(AnnotationsError) as caught:
            load_folds(folder, records)
        assert str(caught.value).startswith(
            f"{path}: images {first} and {other} of group {groups[first]!r} are in folds "
        )


def test_load_folds_lets_images_without_group_lie_anywhere(tmp_path):
    classes = mixed_classes()
    write_class_file(tmp_path, classes)
    folds = make_folds(classes)
    write_folds(tmp_path / "folds.csv", classes, folds, dict.fromkeys(classes, "") | {"p000": "a"})
    assert load_folds(DataFolder(tmp_path)) == folds


@pytest.mark.filterwarnings("error")  # read_records says what is missing
def test_load_folds_makes_them_without_a_class_file(tmp_path):
    rows = [f"p{i},,,,,0" if i % 2 else f"p{i},1,1,5,5,1" for i in range(9, -1, -1)]
    header = "patientId,x,y,width,height,Target"
    DataFolder(tmp_path).labels_path.write_text("\n".join([header, *rows]) + "\n")
    expected = make_folds({f"p{i}": NORMAL if i % 2 else OPACITY for i in range(10)})
    assert load_folds(DataFolder(tmp_path)) == expected


# split_records


def test_split_records_warns_of_sets_of_one_kind():
    with_box = [Record(patient, OPACITY, np.ones((1, 4))) for patient in "ab"]
    folds = {"a": 0, "b": 1, "c": 0, "d": 1}
    with pytest.warns(UserWarning, match="no image of fold 0 is without a box"):
        split_records(with_box, folds, 0)
    with pytest.warns(UserWarning, match="no image to train on for fold 0 has a box"):
        split_records(make_records("cd"), folds, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split_records([*with_box, *make_records("cd")], folds, 0)


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


def write_grouped_labels(folder, column):
    classes, groups = grouped_classes(60)
    rows = [f"{p},,,,,0,{groups[p]}" if classes[p] != OPACITY else f"{p},1,1,5,5,1,{groups[p]}"
            for p in classes]  # fmt: skip
    header = f"patientId,x,y,width,height,Target,{column}"
    DataFolder(folder).labels_path.write_text("\n".join([header, *rows]) + "\n")
    write_class_file(folder, classes)
    return classes, groups


def test_folds_command_groups_by_a_named_column(tmp_path):
    classes, groups = write_grouped_labels(tmp_path, "subject")
    flags = ("--n-folds", 5, "--group-column", "subject")
    result = run_folds("--data-dir", tmp_path, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert read_folds(tmp_path / "folds.csv") == make_grouped_folds(classes, groups, 5)
    assert read_groups(DataFolder(tmp_path)) == groups  # what trains later need not be told


def test_load_folds_groups_by_the_column_of_groups(tmp_path):
    classes, groups = write_grouped_labels(tmp_path, "groupId")
    folder = DataFolder(tmp_path)
    for records in (None, read_records(folder)):
        assert load_folds(folder, records) == make_grouped_folds(classes, groups)


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (["--group-column", "who"], "neither labels nor class file has a column 'who'"),
        (["--n-folds", "1"], "1 is not between 2 and 20"),
        (["--n-folds", "21"], "21 is not between 2 and 20"),
        (["--n-folds", "5"], "4 images of 4 patients cannot make 5 folds"),
        (["--n-folds", "3"], "folds of [2, 2, 0] images: fold 2 is empty"),
    ],
)
def test_folds_command_says_what_cannot_be_split(tmp_path, flags, cause):
    write_class_file(tmp_path, {"a": 1, "b": 1, "c": 2, "d": 2})
    result = run_folds("--data-dir", tmp_path, *flags, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert cause in line
    assert not (tmp_path / "folds.csv").exists()


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
