import warnings

import numpy as np
import pytest

from src.datasets.annotations import (
    read_classes,
    read_folder_classes,
    read_label_files,
    read_records,
)
from src.datasets.data_folder import (
    DataFolder,
)
from src.datasets.tables import AnnotationsError
from src.structures import CLASS_NAMES, OPACITY
from tests.paths import shared

LABELS_HEADER = "patientId,x,y,width,height,Target"
CLASSES_HEADER = "patientId,class"
NOT_NORMAL, NORMAL, OPACITY_NAME = CLASS_NAMES
GOOD_LABELS = ["a,10,20,30,40,1", "a,500.0,20,30,40,1", "b,,,,,0", "c,,,,,0"]
GOOD_CLASSES = [f"a,{OPACITY_NAME}", f"a,{OPACITY_NAME}", f"b,{NORMAL}", f"c,{NOT_NORMAL}"]


def write_lines(path, header, lines):
    path.write_text("".join(f"{line}\n" for line in [header, *lines]))
    return path


def write_tables(folder, labels=GOOD_LABELS, classes=GOOD_CLASSES):
    """Write both files and return their paths."""
    return (
        write_lines(folder / "labels.csv", LABELS_HEADER, labels),
        write_lines(folder / "classes.csv", CLASSES_HEADER, classes),
    )


def refusal(read, *paths):
    """Return the message of the AnnotationsError, after checking that it becomes one line."""
    with pytest.raises(AnnotationsError) as caught:
        read(*paths)
    message = str(caught.value)
    assert len(message.strip().splitlines()) == 1
    return message


def count_categories(records):
    return [sum(record.category == k for record in records) for k in range(len(CLASS_NAMES))]


# The real files


def test_read_label_files_gives_the_counts_of_stage_2():
    folder = shared("annotations")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = read_label_files(
            folder / "stage_2_train_labels.csv", folder / "stage_2_detailed_class_info.csv"
        )
    assert len(records) == 26_684
    assert count_categories(records) == [11_821, 8_851, 6_012]
    assert sum(len(record.boxes_xywh) for record in records) == 9_555
    assert max(len(record.boxes_xywh) for record in records) == 4


def test_read_records_gives_the_counts_of_stage_1(tmp_path):
    for name in ("stage_1_train_labels.csv", "stage_1_detailed_class_info.csv"):
        (tmp_path / name).symlink_to(shared("annotations") / name)
    records = read_records(DataFolder(tmp_path))
    assert len(records) == 25_684
    assert sum(len(record.boxes_xywh) for record in records) == 8_964


def test_read_label_files_counts_the_rows_that_stage_1_test_repeats():
    path = shared("annotations") / "stage_1_test_meta.csv"
    # 1,107 rows for 591 boxes
    with pytest.warns(UserWarning, match=r"stage_1_test_meta\.csv: 516 repeated rows dropped"):
        records = read_label_files(path)
    assert len(records) == 1_000
    assert sum(len(record.boxes_xywh) for record in records) == 591


def test_read_records_reads_the_lungs():
    records = read_records(DataFolder(shared("lungs")))
    assert len(records) == 277
    assert sum(len(record.boxes_xywh) for record in records) == 544
    assert sum(len(record.boxes_xywh) == 0 for record in records) == 5


# What comes out


def test_read_label_files_gathers_the_boxes_of_a_patient(tmp_path):
    record, *_ = read_label_files(*write_tables(tmp_path))
    assert (record.patient_id, record.category) == ("a", OPACITY)
    assert record.boxes_xywh.dtype == np.float64
    np.testing.assert_array_equal(record.boxes_xywh, [[10, 20, 30, 40], [500, 20, 30, 40]])


def test_read_label_files_gives_no_row_to_an_image_without_box(tmp_path):
    _, normal, not_normal = read_label_files(*write_tables(tmp_path))
    assert normal.boxes_xywh.shape == not_normal.boxes_xywh.shape == (0, 4)
    assert (CLASS_NAMES[normal.category], CLASS_NAMES[not_normal.category]) == (NORMAL, NOT_NORMAL)


def test_read_label_files_sorts_by_patient_and_keeps_the_order_of_boxes(tmp_path):
    labels = ["b,,,,,0", "a,500,20,30,40,1", "c,,,,,0", "a,10,20,30,40,1"]
    records = read_label_files(*write_tables(tmp_path, labels))
    assert [record.patient_id for record in records] == ["a", "b", "c"]
    assert records[0].boxes_xywh[:, 0].tolist() == [500, 10]


def test_read_label_files_drops_repeated_rows_with_a_count(tmp_path):
    paths = write_tables(tmp_path, [*GOOD_LABELS, *GOOD_LABELS[:3]])
    with pytest.warns(UserWarning, match=r"labels\.csv: 3 repeated rows dropped"):
        records = read_label_files(*paths)
    assert [len(record.boxes_xywh) for record in records] == [2, 0, 0]


def test_read_label_files_drops_a_repeated_box_in_another_spelling(tmp_path):
    paths = write_tables(tmp_path, ["a,10,20,30,40,1", "a,10.0,2e1,30,40,1"], [f"a,{OPACITY_NAME}"])
    with pytest.warns(UserWarning, match="1 repeated rows dropped"):
        (record,) = read_label_files(*paths)
    assert record.boxes_xywh.tolist() == [[10, 20, 30, 40]]


def test_read_label_files_gives_floats_for_whole_numbers(tmp_path):
    paths = write_tables(tmp_path, ["a,10,20,30,40,1"], [f"a,{OPACITY_NAME}"])
    assert read_label_files(*paths)[0].boxes_xywh.dtype == np.float64


def test_read_label_files_passes_over_blank_lines_and_counts_them(tmp_path):
    paths = write_tables(tmp_path, ["", *GOOD_LABELS, "", ""])
    assert len(read_label_files(*paths)) == 3
    paths = write_tables(tmp_path, ["", *GOOD_LABELS, "", "b,,,,,7"])
    assert "line 8: Target '7'" in refusal(read_label_files, *paths)


def test_read_label_files_takes_the_class_from_a_column(tmp_path):
    lines = [f"a,1,2,3,4,1,{OPACITY_NAME}", f"b,,,,,0,{NORMAL}"]
    records = read_label_files(write_lines(tmp_path / "m.csv", f"{LABELS_HEADER},class", lines))
    assert [record.category for record in records] == [OPACITY, CLASS_NAMES.index(NORMAL)]


@pytest.mark.parametrize(
    "change", [lambda t: t.replace(b"\n", b"\r\n"), lambda t: b"\xef\xbb\xbf" + t]
)
def test_read_label_files_reads_what_spreadsheets_write(tmp_path, change):
    paths = write_tables(tmp_path)
    for path in paths:
        path.write_bytes(change(path.read_bytes()))
    assert [len(record.boxes_xywh) for record in read_label_files(*paths)] == [2, 0, 0]


def test_read_label_files_takes_a_box_over_the_whole_image(tmp_path):
    paths = write_tables(tmp_path, ["a,0,0,1024,1024,1"], [f"a,{OPACITY_NAME}"])
    assert read_label_files(*paths)[0].boxes_xywh.tolist() == [[0, 0, 1024, 1024]]


def test_read_classes_keeps_the_order_of_the_file(tmp_path):
    lines = [f"b,{NORMAL}", f"a,{OPACITY_NAME}", f"b,{NORMAL}"]
    classes = read_classes(write_lines(tmp_path / "c.csv", CLASSES_HEADER, lines))
    assert list(classes.items()) == [("b", 1), ("a", 2)]


# Bad rows


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ("a,ten,20,30,40,1", "x 'ten' is not a number"),
        ("a,10,nan,30,40,1", "y 'nan' is not a number"),
        ("a,10,20,inf,40,1", "width 'inf' is not a number"),
        ("a,10,20,30,-inf,1", "height '-inf' is not a number"),
        ("a,10,20,30,1e999,1", "height '1e999' is not a number"),
        ('a,"1,5",20,30,40,1', "x '1,5' is not a number"),
        ("a,NA,20,30,40,1", "x 'NA' is not a number"),
        ("a,10,20,-30,40,1", "width -30 is not positive"),
        ("a,10,20,30,0,1", "height 0 is not positive"),
        ("a,-1,20,30,40,1", "box outside the image: x -1, width 30"),
        ("a,10,-0.5,30,40,1", "box outside the image: x 10, width 30, y -0.5, height 40"),
        ("a,10,-0.02,30,40,1", "box outside the image: x 10"),
        ("a,-0.005,20,0.004,40,1", "box outside the image: x -0.005"),
        ("a,10,20,30,40,2", "Target '2' is not 0 or 1"),
        ("a,10,20,30,40,", "Target '' is not 0 or 1"),
        ("a,10,20,30,40,1.0", "Target '1.0' is not 0 or 1"),
        ("a,10,20,30,40,0", "Target is 0 but x is 10"),
        ("b,,,,40,0", "Target is 0 but height is 40"),
        ("a,10,20,,40,1", "Target is 1 but width is empty"),
        ("a,,,,,1", "Target is 1 but x is empty"),
        ("a,,,,,0", f"Target is 0 but the class is {OPACITY_NAME!r}"),
        ("b,10,20,30,40,1", f"Target is 1 but the class is not {OPACITY_NAME!r}"),
        ("d,,,,,0", "patient d has no class"),
        (",,,,,0", "patientId is empty"),
        ("../b,,,,,0", "patientId '../b' cannot be the name of a file"),
        ("b\\c,,,,,0", r"patientId 'b\\c' cannot be the name of a file"),
        (".b,,,,,0", "patientId '.b' cannot be the name of a file"),
        ("/b,,,,,0", "patientId '/b' cannot be the name of a file"),
        ("a//b,,,,,0", "patientId 'a//b' cannot be the name of a file"),
        ("a/.b,,,,,0", "patientId 'a/.b' cannot be the name of a file"),
        ("b\0,,,,,0", r"patientId 'b\x00' cannot be the name of a file"),
        ("b,,", "Target '' is not 0 or 1"),
        ("a{x},ten,20,30,40,1", "x 'ten' is not a number"),
    ],
)
def test_read_label_files_refuses_row(tmp_path, row, cause):
    paths = write_tables(tmp_path, [GOOD_LABELS[0], row, *GOOD_LABELS[2:]])
    assert f"{paths[0]}: line 3: {cause}" in refusal(read_label_files, *paths)


def test_a_start_that_rounding_put_outside_is_cut_off(tmp_path):
    paths = write_tables(tmp_path, ["a,-0.005,20.1,30,40.7,1", *GOOD_LABELS[2:]])
    assert read_label_files(*paths)[0].boxes_xywh.tolist() == [[0, 20.1, 29.995, 40.7]]


def test_read_label_files_names_the_first_bad_row(tmp_path):
    paths = write_tables(tmp_path, [*GOOD_LABELS, "a,1,1,-5,1,1", "a,1,1,-6,1,1"])
    assert "line 6: width -5" in refusal(read_label_files, *paths)


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ([f"a,{OPACITY_NAME}", "b,Healthy"], "line 3: class 'Healthy' does not exist; one of 'No"),
        ([f"a,{OPACITY_NAME}", f"b,{NORMAL}", "c,"], "line 4: class '' does not exist"),
        (
            [*GOOD_CLASSES, f"b,{NOT_NORMAL}"],
            f"line 6: patient b has a second class, {NOT_NORMAL!r}",
        ),
        ([*GOOD_CLASSES, f"../d,{NORMAL}"], "line 6: patientId '../d' cannot be"),
    ],
)
def test_read_label_files_refuses_class_row(tmp_path, lines, cause):
    labels_path, classes_path = write_tables(tmp_path, classes=lines)
    message = refusal(read_label_files, labels_path, classes_path)
    assert f"{classes_path}: {cause}" in message


def test_read_label_files_refuses_a_class_without_row(tmp_path):
    paths = write_tables(tmp_path, classes=[*GOOD_CLASSES, f"d,{NORMAL}"])
    message = refusal(read_label_files, *paths)
    assert f"{paths[0]}: patient d has a class but no row" in message


@pytest.mark.filterwarnings("ignore:.*repeated rows")
def test_read_label_files_counts_lines_through_repeated_rows(tmp_path):
    labels = [*GOOD_LABELS, *GOOD_LABELS, "a,1,1,-5,1,1"]  # on line 10
    paths = write_tables(tmp_path, labels)
    assert "line 10: width -5" in refusal(read_label_files, *paths)


@pytest.mark.filterwarnings("ignore:.*repeated rows")
def test_read_label_files_counts_lines_of_classes_through_repeated_rows(tmp_path):
    header, row = f"{LABELS_HEADER},class", f"a,1,1,5,5,1,{OPACITY_NAME}"
    path = write_lines(tmp_path / "m.csv", header, [row, row, row, "b,,,,,0,Healthy"])
    assert "line 5: class 'Healthy'" in refusal(read_label_files, path)


# Bad files


@pytest.mark.parametrize("column", LABELS_HEADER.split(","))
def test_read_label_files_refuses_labels_without_column(tmp_path, column):
    labels_path, classes_path = write_tables(tmp_path)
    labels_path.write_text(labels_path.read_text().replace(column, "other", 1))
    message = refusal(read_label_files, labels_path, classes_path)
    assert f"{labels_path}: has no column {column}; it has " in message


def test_read_label_files_refuses_two_columns_of_one_name(tmp_path):
    labels_path, classes_path = write_tables(tmp_path)
    labels = [f"{line},1" for line in GOOD_LABELS]
    write_lines(labels_path, f"{LABELS_HEADER},Target", labels)
    message = refusal(read_label_files, labels_path, classes_path)
    assert f"{labels_path}: has two columns Target" in message


def test_read_label_files_refuses_classes_without_column(tmp_path):
    labels_path, classes_path = write_tables(tmp_path)
    classes_path.write_text(classes_path.read_text().replace("class", "kind", 1))
    message = refusal(read_label_files, labels_path, classes_path)
    assert f"{classes_path}: has no column class" in message


def test_read_label_files_needs_classes_from_somewhere(tmp_path):
    labels_path, _ = write_tables(tmp_path)
    assert f"{labels_path}: has no column class" in refusal(read_label_files, labels_path)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "content",
    [b"", b"\n", bytes(range(256)) * 9, bytes(100), b"\xff\xd8\xff\xe0 jpeg", b'a,"b\n1,2\n'],
    ids=["empty", "newline", "bytes", "zeros", "jpeg", "open quote"],
)
def test_read_label_files_refuses_what_is_no_table(tmp_path, which, content):
    paths = write_tables(tmp_path)
    paths[which].write_bytes(content)
    assert str(paths[which]) in refusal(read_label_files, *paths)


@pytest.mark.parametrize("which", [0, 1])
def test_read_label_files_refuses_a_header_alone(tmp_path, which):
    paths = write_tables(tmp_path)
    paths[which].write_text(paths[which].read_text().splitlines()[0] + "\n")
    assert f"{paths[which]}: has no rows" in refusal(read_label_files, *paths)


@pytest.mark.parametrize("which", [0, 1])
def test_read_label_files_refuses_a_missing_file(tmp_path, which):
    paths = write_tables(tmp_path)
    paths[which].unlink()
    assert f"{paths[which]}: no such file" in refusal(read_label_files, *paths)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("more", [",", ",5,6"])
def test_read_label_files_refuses_rows_longer_than_the_header(tmp_path, which, more):
    paths = write_tables(tmp_path)
    header, *lines = paths[which].read_text().splitlines()
    write_lines(paths[which], header, [line + more for line in lines])
    assert str(paths[which]) in refusal(read_label_files, *paths)


def test_read_label_files_refuses_one_row_longer_than_the_header(tmp_path):
    paths = write_tables(tmp_path, [GOOD_LABELS[0], "b,,,,,0,7", *GOOD_LABELS[2:]])
    message = refusal(read_label_files, *paths)
    assert str(paths[0]) in message
    assert "line 3" in message


# Folders


@pytest.mark.parametrize(("stages", "expected"), [([1], 1), ([2], 2), ([1, 2], 2), ([], 2)])
def test_data_folder_prefers_stage_2(tmp_path, stages, expected):
    for stage in stages:
        (tmp_path / f"stage_{stage}_train_labels.csv").touch()
    folder = DataFolder(tmp_path)
    names = [folder.labels_path, folder.classes_path, folder.sample_submission_path]
    assert folder.stage == expected
    assert [path.name for path in names] == [
        f"stage_{expected}_train_labels.csv",
        f"stage_{expected}_detailed_class_info.csv",
        f"stage_{expected}_sample_submission.csv",
    ]


def test_data_folder_reads_records_of_stage_1(tmp_path):
    labels_path, classes_path = write_tables(tmp_path)
    labels_path.rename(tmp_path / "stage_1_train_labels.csv")
    classes_path.rename(tmp_path / "stage_1_detailed_class_info.csv")
    assert len(read_records(DataFolder(tmp_path))) == 3


def test_read_records_makes_two_classes_where_none_is_given(tmp_path):
    write_lines(DataFolder(tmp_path).labels_path, LABELS_HEADER, GOOD_LABELS)
    with pytest.warns(UserWarning, match="'Lung Opacity' and one without is 'Normal'") as said:
        records = read_records(DataFolder(tmp_path))
    assert len(said) == 1
    assert [record.category for record in records] == [OPACITY, 1, 1]
    assert [len(record.boxes_xywh) for record in records] == [2, 0, 0]


def test_read_records_takes_the_classes_of_a_column(tmp_path):
    lines = [f"b,1,2,3,4,1,{OPACITY_NAME}", f"a,,,,,0,{NOT_NORMAL}"]
    write_lines(DataFolder(tmp_path).labels_path, f"{LABELS_HEADER},class", lines)
    classes = {"a": CLASS_NAMES.index(NOT_NORMAL), "b": OPACITY}
    assert {r.patient_id: r.category for r in read_records(DataFolder(tmp_path))} == classes
    assert read_folder_classes(DataFolder(tmp_path)) == classes


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("stage", [1, 2])
def test_images_dir_is_kaggles_before_the_short_one(tmp_path, split, stage):
    (tmp_path / f"stage_{stage}_train_labels.csv").touch()
    (tmp_path / split).mkdir()
    assert DataFolder(tmp_path).images_dir(split) == tmp_path / split
    kaggle = tmp_path / f"stage_{stage}_{split}_images"
    kaggle.mkdir()
    assert DataFolder(tmp_path).images_dir(split) == kaggle
    (tmp_path / split / "a.dcm").touch()
    (kaggle / ".DS_Store").touch()
    assert DataFolder(tmp_path).images_dir(split) == tmp_path / split
    (kaggle / "a.dcm").touch()
    assert DataFolder(tmp_path).images_dir(split) == kaggle


def test_images_dir_names_the_folder_that_is_missing(tmp_path):
    message = refusal(DataFolder(tmp_path).images_dir, "test")
    usual, short = tmp_path / "stage_2_test_images", tmp_path / "test"
    assert message == f"{usual}: no such folder of images, nor {short}"


def test_images_dir_says_how_to_get_a_data_folder(tmp_path):
    message = refusal(DataFolder(tmp_path / "none").images_dir, "train")
    assert f"{tmp_path / 'none'}: no such data folder" in message
    assert "scripts/dataset_download.sh" in message


@pytest.mark.parametrize("patient", ["a b", "1.2.840.1", "é", "study 1/view.v2", "007"])
def test_a_patient_id_may_hold_spaces_dots_letters_and_slashes(tmp_path, patient):
    path = tmp_path / "labels.csv"
    path.write_text(f"patientId,x,y,width,height,Target,class\n{patient},,,,,0,Normal\n")
    assert [record.patient_id for record in read_label_files(path)] == [patient]
