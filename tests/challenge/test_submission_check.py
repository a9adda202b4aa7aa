import pytest

from src.challenge.submission_check import check_ids, check_submission
from src.challenge.submission_file import SubmissionError
from src.datasets.tables import AnnotationsError, read_sample_ids
from tests.paths import shared
from tests.submission_files import write_rows, write_sample


def test_the_sample_submission_gives_the_order(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_text("patientId,PredictionString\nc,0.5 0 0 100 100\na,\nb,\n")
    assert read_sample_ids(path) == ["c", "a", "b"]


@pytest.mark.parametrize("content", [None, b"", b"patientId,PredictionString\n", b"id\n1\n",
                                     b"\xff\xfe\x00"])  # fmt: skip
def test_a_sample_submission_that_is_something_else_is_refused(tmp_path, content):
    path = tmp_path / "sample.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AnnotationsError, match=r"sample\.csv: (no|has no|not a)"):
        read_sample_ids(path)


def test_a_sample_submission_that_names_a_patient_twice_is_refused(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_text("patientId,PredictionString\na,\nb,\na,\n")
    with pytest.raises(AnnotationsError, match="line 4: patient a again"):
        read_sample_ids(path)


def test_patients_without_image_are_counted_and_named(tmp_path):
    with pytest.raises(SubmissionError, match=r"2 patients .*no image.* b$"):
        check_ids(["a"], ["c", "b", "a"], tmp_path)


def test_images_that_the_sample_does_not_list_are_counted_and_named(tmp_path):
    with pytest.raises(SubmissionError, match=r"1 patients .*not listed.* z$"):
        check_ids(["z", "a"], ["a"], tmp_path)
    check_ids(["b", "a"], ["a", "b"], tmp_path)


@pytest.fixture
def sample(tmp_path):
    return write_sample(tmp_path)


def test_check_submission_takes_the_patients_in_any_order(tmp_path, sample):
    path = write_rows(tmp_path, "c,", "a,0.5 1 2 3 4", "b,")
    assert check_submission(path, sample).faults == []


def test_check_submission_lists_missing_and_extra_patients_with_their_lines(tmp_path, sample):
    path = write_rows(tmp_path, "a,", "x,", "y,1")
    faults = check_submission(path, sample).faults
    assert [fault.line for fault in faults] == [3, 4, 4, None, None]
    words = (["'x'", str(sample)], ["1 numbers"], ["'y'", str(sample)],
             ["patient b", "missing", f"line 3 of {sample}"],
             ["patient c", "missing", f"line 4 of {sample}"])  # fmt: skip
    for fault, expected in zip(faults, words, strict=True):
        assert all(word in fault.problem for word in expected)


def test_check_submission_does_not_miss_a_patient_whose_row_is_broken(tmp_path, sample):
    path = write_rows(tmp_path, "a,1", "b", "c;0.5 1 2 3 4")
    assert {fault.line for fault in check_submission(path, sample).faults} == {2, 3, 4}


def test_check_submission_takes_kaggles_sample():
    path = shared("annotations") / "stage_2_sample_submission.csv"
    parsed = check_submission(path, path)
    assert parsed.faults == []
    assert len(parsed.boxes) == 3000
