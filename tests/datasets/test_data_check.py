"""Each fault that is planted in a sound data folder is found, and the verdict follows."""

import csv
import os
import shutil

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGBaseline8Bit

from src import train_runner
from src.datasets.data_check import (
    FATAL,
    KINDS,
    check_data_folder,
    describe,
    verdict,
    write_findings,
)
from src.datasets.data_folder import DataFolder
from src.datasets.folds import load_folds
from src.datasets.tables import AnnotationsError
from src.system import processes
from tests.datasets.conftest import LANDSCAPE
from tests.dicom_files import encode_jpeg, write_challenge_dicom, write_stream
from tests.paths import shared

LABELS = "stage_2_train_labels.csv"


@pytest.fixture
def data(data_dir, tmp_path):
    """Return a copy of a sound folder: 88 training images, 5 test images, one not square."""
    folder = DataFolder(tmp_path / "data")
    shutil.copytree(data_dir, folder.root)
    return folder


def found(folder, kind, **options):
    """Return the findings of one kind, after holding that they come in the order of KINDS."""
    findings = check_data_folder(folder, 0, n_workers=0, **options).findings
    order = [list(KINDS).index(finding.kind) for finding in findings]
    assert order == sorted(order)
    return [finding for finding in findings if finding.kind == kind]


def kinds_of(folder, **options):
    return {
        finding.kind for finding in check_data_folder(folder, 0, n_workers=0, **options).findings
    }


def image(folder, patient, split="train"):
    return folder.images_dir(split) / f"{patient}.dcm"


def patients_of(folder, fold, n_patients=2):
    folds = load_folds(folder)
    return [p for p in folds if folds[p] == fold and p != LANDSCAPE][:n_patients]


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_sound_folder_shows_its_odd_image_alone(data):
    findings = check_data_folder(data, 0, full=True, n_workers=0).findings
    (odd,) = (finding for finding in findings if finding.kind != "grey values")
    assert (odd.kind, odd.patient) == ("odd size", "p03")
    assert odd.detail == "300 x 500; most are 128 x 128"
    assert verdict([odd], 0) == (True, "a training of fold 0 would run")


def test_images_with_little_to_see_are_found_when_all_are_decoded(data):
    flat, plain = patients_of(data, 0)
    write_challenge_dicom(image(data, flat), np.full((128, 128), 99, np.uint8))
    write_challenge_dicom(
        image(data, plain), np.tile(np.arange(0, 256, 2, dtype=np.uint8), (128, 1))
    )
    details = {f.patient: f.detail for f in found(data, "grey values", full=True)}
    assert details[flat] == "nearly one grey"
    assert plain not in details
    assert found(data, "grey values") == []


def test_several_processes_find_the_same(data, monkeypatch):
    monkeypatch.setattr(processes, "MIN_FILES", 2)
    image(data, "p04").unlink()
    first, second = (check_data_folder(data, 0, n_workers=n).findings for n in (2, 0))
    assert first == second


def test_real_images_are_sound():
    assert check_data_folder(DataFolder(shared("lungs")), 0).findings == []


def test_a_missing_image_is_found(data):
    image(data, "p04").unlink()
    (finding,) = found(data, "no image")
    assert finding.patient == "p04"
    assert finding.file == str(image(data, "p04"))
    findings = check_data_folder(data, 0, n_workers=0).findings
    assert verdict(findings, 0) == (False, "a training of fold 0 would fail: 1 no image")


def test_an_image_of_another_ending_and_kind_is_sound(data):
    image(data, "p04").rename(image(data, "p04").with_suffix(".DCM"))
    cv2.imwrite(str(image(data, "p06").with_suffix(".png")), np.eye(128, dtype=np.uint8) * 255)
    image(data, "p06").unlink()
    assert kinds_of(data) == {"odd size"}


def test_two_files_for_one_patient_are_found(data):
    shutil.copy(image(data, "p04"), image(data, "p04").with_suffix(".DCM"))
    (finding,) = found(data, "several images")
    assert finding.patient == "p04"
    assert "p04.DCM and p04.dcm" in finding.detail
    assert not verdict([finding], 0)[0]


def test_hidden_files_are_no_images(data):
    for split in ("train", "test"):
        (image(data, "p04", split).with_name("._p04.dcm")).write_text("of macOS")
        (image(data, "p04", split).with_name(".DS_Store")).write_text("of macOS")
    assert kinds_of(data) == {"odd size"}


def test_a_broken_link_is_left_out_with_its_cause(data):
    (image(data, "p04").with_name("other.dcm")).symlink_to("nowhere")
    (finding,) = found(data, "left out")
    assert finding.file.endswith("other.dcm")
    assert finding.detail == "a broken link: No such file or directory"


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_an_unreadable_image_is_found_with_its_cause(data, content):
    path = image(data, "p04")
    path.write_bytes(path.read_bytes()[:1500] if content is None else content)
    (finding,) = found(data, "unreadable")
    assert finding.file == str(path)
    assert any(word in finding.detail for word in ("empty", "neither a DICOM", "truncated"))


@pytest.mark.parametrize("shape", [(64, 64), (128, 128)])
def test_pixels_that_are_cut_off_or_of_another_size_need_no_full(data, shape):
    stream = encode_jpeg(np.eye(*shape, dtype=np.uint8) * 255)
    stream = stream[: len(stream) // 2] if shape == (128, 128) else stream
    write_stream(image(data, "p04"), np.zeros((128, 128), np.uint8), JPEGBaseline8Bit, stream)
    (finding,) = found(data, "unreadable")
    assert "truncated" in finding.detail or "JPEG 64 x 64" in finding.detail


def test_damage_within_the_pixels_needs_full(data):
    path = image(data, "p04")
    content = bytearray(path.read_bytes())
    middle = (content.index(b"\xff\xda") + len(content)) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    assert found(data, "unreadable") == []
    (finding,) = found(data, "unreadable", full=True)
    assert "cannot be decoded" in finding.detail


def test_an_unreadable_image_that_no_training_needs_is_no_obstacle(data):
    image(data, "t1", "test").write_bytes(b"")
    image(data, "other").write_bytes(b"")
    assert len(found(data, "unreadable, not trained on")) == 2
    assert verdict(check_data_folder(data, 0, n_workers=0).findings, 0)[0]


def test_a_pipe_among_the_images_is_left_out(data):
    image(data, "p04").unlink()
    os.mkfifo(image(data, "p04"))
    (finding,) = found(data, "left out")
    assert "not a regular file" in finding.detail
    assert [finding.patient for finding in found(data, "no image")] == ["p04"]


def test_an_unlabelled_image_is_found(data):
    shutil.copy(image(data, "t0", "test"), image(data, "other"))
    (finding,) = found(data, "unlabelled")
    assert finding.patient == "other"


@pytest.mark.parametrize(("folds", "kind"), [((0, 1), "leak"), ((2, 2), "duplicate")])
def test_the_same_pixels_twice_are_a_leak_if_folds_part_them(data, folds, kind):
    first = patients_of(data, folds[0])[0]
    second = patients_of(data, folds[1])[-1]
    copy = pydicom.dcmread(image(data, first))
    copy.PatientID = second  # another header, another file
    copy.save_as(image(data, second))
    (finding,) = found(data, kind)
    assert {finding.patient} <= {first, second}
    assert f"fold {folds[0]}" in finding.detail
    assert f"fold {folds[1]}" in finding.detail
    assert kinds_of(data) <= {kind, "odd size"}


def test_a_training_image_among_the_test_images_is_a_leak(data):
    shutil.copy(image(data, "p04"), image(data, "t9", "test"))
    (finding,) = found(data, "leak")
    assert finding.patient == "t9"
    assert "a test image; the same pixels as p04.dcm, fold" in finding.detail


def test_a_leak_is_one_though_an_unlabelled_copy_comes_first(data):
    first, second = patients_of(data, 0)[0], patients_of(data, 1)[0]
    shutil.copy(image(data, first), image(data, "a copy"))
    shutil.copy(image(data, first), image(data, second))
    assert {finding.patient for finding in found(data, "leak")} == {first, second}


def test_unlabelled_copies_are_duplicates(data):
    shutil.copy(image(data, "p04"), image(data, "x1"))
    shutil.copy(image(data, "p04"), image(data, "x2"))
    assert [finding.patient for finding in found(data, "duplicate")] == ["x1", "x2"]
    assert found(data, "leak") == []


def test_another_patients_header_is_found(data):
    write_challenge_dicom(image(data, "p04"), np.eye(128, dtype=np.uint8), PatientID="p05")
    (finding,) = found(data, "other patient")
    assert finding.patient == "p04"
    assert "'p05'" in finding.detail


def set_patient_id(path, patient):
    dataset = pydicom.dcmread(path)
    dataset.PatientID = patient
    dataset.save_as(path)


def test_a_patient_of_two_folds_is_found(data):
    first, second = sorted([patients_of(data, 0)[0], patients_of(data, 1)[0]])
    for patient in (first, second):
        set_patient_id(image(data, patient), "somebody")
    (finding,) = found(data, "same patient")
    assert finding.patient == second
    assert f"PatientID 'somebody' as {first}.dcm, fold " in finding.detail
    assert verdict([finding], 0)[0]


def test_a_patient_of_training_and_test_images_is_found(data):
    set_patient_id(image(data, "p04"), "p04")
    set_patient_id(image(data, "t1", "test"), "p04 ")
    (finding,) = found(data, "same patient")
    assert finding.detail.startswith("a test image; PatientID 'p04' as p04.dcm, fold ")


def test_a_patient_of_one_fold_alone_is_sound(data):
    for patient in patients_of(data, 2):
        set_patient_id(image(data, patient), "somebody")
    assert found(data, "same patient") == []


def test_an_id_that_most_images_share_is_no_patient(data):
    for patient in load_folds(data):
        set_patient_id(image(data, patient), "ANONYMOUS")
    assert found(data, "same patient") == []


def test_a_box_that_leaves_its_own_image_is_found(data):
    text = (data.root / LABELS).read_text().splitlines()
    row = next(line for line in text if line.startswith("p05,"))
    edit(data.root / LABELS, row, "p05,100.0,10.0,40.0,20.0,1")
    (finding,) = found(data, "box outside")
    assert finding.patient == "p05"
    assert finding.detail == "x 100, y 10, width 40, height 20, of 128 x 128"


def test_a_box_that_rounding_put_outside_is_sound(data):
    text = (data.root / LABELS).read_text().splitlines()
    row = next(line for line in text if line.startswith("p05,"))
    edit(data.root / LABELS, row, "p05,100.0,-0.0005,28.0005,20.0,1")
    assert found(data, "box outside") == []


def test_a_patient_of_the_sample_submission_without_image_is_found(data):
    data.sample_submission_path.write_text("patientId,PredictionString\nt0,\nt7,\n")
    (finding,) = found(data, "no test image")
    assert finding.patient == "t7"
    data.sample_submission_path.write_text("")
    (finding,) = found(data, "no test image")
    assert "not a sample submission" in finding.detail


def test_a_wrong_label_is_found_and_the_images_are_looked_at_all_the_same(data):
    edit(data.root / LABELS, "p00,,,,,0", "p00,,,,,9")
    image(data, "p04").write_bytes(b"")
    findings = check_data_folder(data, 0, n_workers=0).findings
    assert findings[0].kind == "no labels"
    assert "line 2: Target '9' is not 0 or 1" in findings[0].detail
    assert {finding.kind for finding in findings} >= {"no labels", "unreadable, not trained on"}
    assert not verdict(findings, 0)[0]


def test_a_fold_that_is_not_there_is_found(data):
    patients = load_folds(data)
    rows = [f"{patient},{1 if fold == 0 else fold}" for patient, fold in patients.items()]
    data.folds_path.write_text("\n".join(["patientId,fold", *rows]))
    (finding,) = found(data, "no folds")
    assert "fold 0 has no images" in finding.detail


def test_a_folder_without_any_image_lacks_every_image(data):
    for path in data.images_dir("train").iterdir():
        path.unlink()
    assert len(found(data, "no image")) == 88


def test_a_name_that_is_no_text_is_written_as_escapes(data, tmp_path):
    name = os.fsdecode(b"\xff\xfe.dcm")
    shutil.copy(image(data, "p04"), data.images_dir("train") / name)
    findings = check_data_folder(data, 0, n_workers=0).findings
    write_findings(tmp_path / "a.csv", findings)
    assert "\\udcff" in (tmp_path / "a.csv").read_text(encoding="utf-8")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(AnnotationsError, match="no such data folder"):
        check_data_folder(DataFolder(tmp_path / "nothing"), 0)


def test_the_table_has_every_kind_with_its_first_case(data):
    image(data, "p04").unlink()
    image(data, "p06").unlink()
    lines = list(describe(check_data_folder(data, 0, n_workers=0).findings))
    counts = {line[:26].strip(): int(line[26:34]) for line in lines if not line.startswith(" ")}
    assert counts == dict.fromkeys(KINDS, 0) | {"no image": 2, "odd size": 1}
    (place,) = [i for i, line in enumerate(lines) if line.startswith("no image")]
    assert f"{image(data, 'p04')}: no such file" in lines[place + 1]
    assert set(FATAL) < set(KINDS)


def test_the_table_has_no_place_for_what_names_it_itself(data):
    edit(data.root / LABELS, "p00,,,,,0", "p00,,,,,9")
    lines = list(describe(check_data_folder(data, 0, n_workers=0).findings))
    assert lines[1].strip() == f"{data.root / LABELS}: line 2: Target '9' is not 0 or 1"


def test_a_name_that_acts_on_a_terminal_is_printed_as_escapes(data):
    (data.images_dir("train") / "a\x1b[31mRED\nline2.dcm").symlink_to("nowhere")
    text = "".join(describe(check_data_folder(data, 0, n_workers=0).findings))
    assert r"a\x1b[31mRED\nline2.dcm: a broken link" in text
    assert text.isprintable()


@pytest.fixture
def check(call_main, data, tmp_path):
    """Return a function that runs the command over the data folder."""
    folders = ("--data-dir", data.root, "--output-dir", tmp_path / "out put")
    common = ("--action", "check_data", "--num-workers", "0", *folders)
    return lambda *flags: call_main(train_runner.main, *common, *flags)


def test_the_command_says_that_a_training_would_run(check, tmp_path):
    outcome = check()
    path = tmp_path / "out put" / "check_data.csv"
    assert outcome.code == 0
    assert outcome.out.splitlines()[-2:] == [str(path), "a training of fold 0 would run"]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["patient"]) for row in rows] == [("odd size", "p03")]


def test_the_command_says_that_a_training_would_fail(check, data, tmp_path):
    image(data, "p04").write_bytes(b"")
    outcome = check("--out", tmp_path / "table.csv", "--fold", "2")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == (
        f"error: {data.root}: a training of fold 2 would fail: 1 unreadable"
    )
    assert "unreadable" in (tmp_path / "table.csv").read_text()


def test_the_command_decodes_only_where_it_is_asked_to(check, data):
    path = image(data, "p04")
    content = path.read_bytes()
    middle = (content.index(b"\xff\xda") + len(content)) // 2
    path.write_bytes(content[:middle] + bytes(200) + content[middle + 200 :])
    assert check().code == 0
    assert check("--full").code == 2
