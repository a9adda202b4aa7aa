import pytest

from src.datasets.annotations import read_label_files
from src.datasets.folds import read_folds
from src.datasets.patient_ids import (
    fault_of_patient_id,
    fault_of_patient_ids,
    patient_of_file,
)
from src.datasets.tables import AnnotationsError, read_sample_ids, read_table

SOUND = ("0004cfab-14fd-4e49-80ba-63a80b6bddd6", "p 1", "é", "007", "NA", "a'b", "a.b", "~", "#1")
WRONG = {
    "": "empty", "  ": "empty", "a//b": "name of a file", "a\\b": "name of a file",
    ".a": "name of a file", "a\0b": "name of a file", " a": "spaces around", "a ": "spaces around",
    "a\nb": "line break", "a\rb": "line break", "a\tb": "cannot be shown", "a\x1b[2J": "be shown",
    "a\u2028b": "line break", "a,b": "comma", 'a"b': "quotation mark", ",": "comma",
}  # fmt: skip


@pytest.mark.parametrize("patient", SOUND)
def test_what_a_file_and_a_submission_can_hold_is_a_patient_id(patient):
    assert fault_of_patient_id(patient) is None


@pytest.mark.parametrize(("patient", "words"), WRONG.items())
def test_what_they_cannot_hold_is_none(patient, words):
    fault = fault_of_patient_id(patient)
    assert fault is not None
    assert words in fault
    assert fault.isprintable()


def test_a_long_patient_id_is_cut_in_the_message():
    fault = fault_of_patient_id("a," * 5000)
    assert fault is not None
    assert len(fault) < 200


def test_the_images_of_a_submission_have_a_patient_id_each():
    assert fault_of_patient_ids(SOUND) is None
    assert fault_of_patient_ids(["a", "b", "a"]) == "two images have the patientId 'a'"
    assert "comma" in str(fault_of_patient_ids(["a", "b,c"]))
    assert fault_of_patient_ids([]) is None


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("p.dcm", "p"),
        ("deep/er/p.DCM", "p"),
        ("p.1.dcm", "p.1"),
        ("p.png", ""),
        ("p", ""),
        ("p.dcm/image", ""),
        ("p.dcm.png", ""),
    ],
)
def test_the_file_of_a_patient_is_a_dicom_file_of_that_name(name, patient):
    assert patient_of_file(name) == patient


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


@pytest.mark.parametrize("patient", ["a,b", 'a"b', "a\nb", "a\rb", " a", "a\u2028b"])
@pytest.mark.parametrize(
    ("read", "header", "cells"),
    [
        (read_sample_ids, "patientId,PredictionString", ""),
        (read_folds, "patientId,fold", "0"),
        (read_label_files, "patientId,x,y,width,height,Target,class", ",,,,0,Normal"),
    ],
)
def test_tables_hold_no_patient_that_no_submission_can_name(tmp_path, patient, read, header, cells):
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\np,{cells}\n{quoted(patient)},{cells}\n", newline="")
    with pytest.raises(AnnotationsError, match=r"t\.csv: line 3: patientId '"):
        read(path)


def test_a_table_keeps_every_sound_patient(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("patientId\n" + "".join(f"{quoted(patient)}\n" for patient in SOUND))
    assert read_table(path, ["patientId"])["patientId"].tolist() == list(SOUND)


def test_a_sample_submission_may_start_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_bytes(b"\xef\xbb\xbfpatientId,PredictionString\r\nb,\r\na,0.5 0 0 1 1\r\n")
    assert read_sample_ids(path) == ["b", "a"]
