import re

import pytest

from src.challenge.submission_file import SubmissionError, parse_submission, read_submission
from tests.submission_files import HEADER, write_rows


def of_64(patient):
    return 64, 64


def problems_of(path, **options):
    return [
        (fault.line, fault.problem, fault.is_fatal)
        for fault in parse_submission(path, **options).faults
    ]


def test_parse_submission_reads_boxes_and_finds_no_fault(tmp_path):
    path = write_rows(tmp_path, "b,0.5 1 2 3 4 1 0 0 1024 1024", "a,", "c,1e-1 .5 0.5 1. +2")
    parsed = parse_submission(path, size_of=lambda _: (1024, 1024))
    assert parsed.faults == []
    assert parsed.boxes == {
        "b": [(0.5, 1, 2, 3, 4), (1, 0, 0, 1024, 1024)],
        "a": [],
        "c": [(0.1, 0.5, 0.5, 1, 2)],
    }
    assert parsed.lines == {"b": 2, "a": 3, "c": 4}


@pytest.mark.parametrize(
    "change",
    [lambda t: t.replace(b"\n", b"\r\n"), lambda t: t.removesuffix(b"\n")],
    ids=["line ends of Windows", "no line end"],
)
def test_parse_submission_takes_line_ends_as_they_are(tmp_path, change):
    path = write_rows(tmp_path, "a,0.5 1 2 3 4", "b,")
    path.write_bytes(change(path.read_bytes()))
    parsed = parse_submission(path)
    assert (parsed.faults, list(parsed.boxes)) == ([], ["a", "b"])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("b", "nothing after the patientId.*'b,'"),
        ("b 0.5 1 2 3 4", "no comma.*' '"),
        ("b;0.5 1 2 3 4", "no comma.*';'"),
        ("b\t0.5 1 2 3 4", r"no comma.*'\\t'"),
        ("b,0.5,1,2,3,4", "5 commas"),
        ("b,0.5 1 2 3", "4 numbers, not 5"),
        ("b,0.5 1 2 3 4 5", "6 numbers, not 5"),
        ("b,0.5 1 x 3 4", "number 3, 'x'"),
        ("b,0.5 1 nan 3 4", "number 3, 'nan'"),
        ("b,0.5 1 2 -inf 4", "number 4, '-inf'"),
        ("b,0.5 1 2 3 1e999", "number 5, '1e999'"),
        ("b,0.5 1_0 2 3 4", "number 2, '1_0'"),
        ("b,0.5 0x1 2 3 4", "number 2, '0x1'"),
        ("b,0.5 ١ 2 3 4", "number 2, '١'"),
        (",0.5 1 2 3 4", "'' is no patientId"),
        ("b\0,", r"'b\\x00' is no patientId"),
        ("a,", "patient a again, after line 2"),
        ('"b,', "quotation mark without its partner"),
        (f"b,{'9' * 500}x 1 2 3 4", rf"number 1, '{'9' * 59}\.\.\., "),
    ],
)
def test_parse_submission_finds_what_cannot_be_understood(tmp_path, row, words):
    path = write_rows(tmp_path, "a,", row, "c,0.5 1 2 3 4")
    parsed = parse_submission(path)
    assert any(re.search(words, fault.problem) and fault.is_fatal for fault in parsed.faults)
    assert {fault.line for fault in parsed.faults} == {3}
    assert set(parsed.boxes) == {"a", "c"}


BOX = [(0.5, 1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("row", "words", "boxes"),
    [
        ("b, ", "spaces after the comma", []),
        ('b,""', "quotation marks", []),
        ('"b","0.5 1 2 3 4"', "quotation marks", BOX),
        ("b, 0.5 1 2 3 4", "a space at the start or the end", BOX),
        ("b,0.5 1 2 3 4 ", "a space at the start or the end", BOX),
        ("b,0.5  1 2 3 4", "more than one space", BOX),
        ("b,0.5 1\t2 3 4", "more than one space", BOX),
        (" b,0.5 1 2 3 4", "spaces around the patientId", BOX),
        ("b,1.5 1 2 3 4", "box 1: confidence 1.5", [(1.5, 1, 2, 3, 4)]),
        ("b,-1 1 2 3 4", "box 1: confidence -1", [(-1, 1, 2, 3, 4)]),
        ("b,0.5 1 2 0 4", "box 1: width 0", [(0.5, 1, 2, 0, 4)]),
        ("b,0.5 1 2 3 -4", "box 1: height -4", [(0.5, 1, 2, 3, -4)]),
        ("b,0.5 -1 2 3 4", "box 1: outside .*x -1, width 3, of 64", [(0.5, -1, 2, 3, 4)]),
        ("b,0.5 1 61 3 4", "box 1: outside .*y 61, height 4, of 64", [(0.5, 1, 61, 3, 4)]),
    ],
)
def test_parse_submission_finds_what_is_wrong_but_clear(tmp_path, row, words, boxes):
    parsed = parse_submission(write_rows(tmp_path, "a,", row, "c,"), size_of=of_64)
    (fault,) = parsed.faults
    assert (fault.line, fault.is_fatal) == (3, False)
    assert re.search(words, fault.problem)
    assert parsed.boxes["b"] == boxes


def test_parse_submission_names_each_wrong_box_and_number(tmp_path):
    path = write_rows(tmp_path, "a,2 0 0 1 1 0.5 0 0 1 1 0.5 0 0 65 0", "b,x y 0 0 0")
    assert [(line, text[:12]) for line, text, _ in problems_of(path, size_of=of_64)] == [
        (2, "box 1: confi"), (2, "box 3: outsi"), (2, "box 3: heigh"),
        (3, "number 1, 'x"), (3, "number 2, 'y"),
    ]  # fmt: skip


def test_parse_submission_allows_what_rounding_to_one_decimal_adds(tmp_path):
    path = write_rows(tmp_path, "a,0.5 0.1 0 64 64")
    assert problems_of(path, size_of=of_64) == []
    path = write_rows(tmp_path, "a,0.5 0.2 0 64 64")
    assert len(problems_of(path, size_of=of_64)) == 1


def test_parse_submission_finds_an_empty_line(tmp_path):
    path = write_rows(tmp_path, "a,", "", "b,", "")
    assert [(line, is_fatal) for line, _, is_fatal in problems_of(path)] == [(3, False), (5, False)]
    assert all("empty" in problem for _, problem, _ in problems_of(path))


def test_parse_submission_finds_bytes_that_are_not_utf_8(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_bytes(b"patientId,PredictionString\na,\nb,\xe9\n\xc3\xa9,\n")
    assert any(
        line == 3 and "not UTF-8" in text and "0xe9" in text and is_fatal
        for line, text, is_fatal in problems_of(path)
    )
    assert set(parse_submission(path).boxes) == {"a", "é"}


def test_parse_submission_finds_a_byte_order_mark(tmp_path):
    path = write_rows(tmp_path, "a,")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    ((line, problem, is_fatal),) = problems_of(path)
    assert (line, is_fatal) == (1, False)
    assert "byte order mark" in problem


@pytest.mark.parametrize(
    ("header", "is_fatal"),
    [
        ("patientId;PredictionString", True),
        ("PredictionString,patientId", True),
        ("patientid,PredictionString", True),
        ("patientId,PredictionString,", True),
        ("", True),
        ("patientId, PredictionString", False),
        ('"patientId","PredictionString"', False),
    ],
)
def test_parse_submission_finds_a_wrong_header(tmp_path, header, is_fatal):
    path = write_rows(tmp_path, "a,", header=header)
    ((line, problem, found_fatal),) = problems_of(path)
    assert (line, found_fatal) == (1, is_fatal)
    assert repr(header) in problem
    assert repr(HEADER) in problem


@pytest.mark.parametrize("content", [b"", b"patientId,PredictionString\n"])
def test_parse_submission_finds_that_there_are_no_rows(tmp_path, content):
    path = tmp_path / "submission.csv"
    path.write_bytes(content)
    assert problems_of(path)[-1] == (None, "has no rows", True)


@pytest.mark.parametrize("name", ["none.csv", "."])
def test_parse_submission_refuses_what_is_no_file(tmp_path, name):
    with pytest.raises(SubmissionError, match="cannot be read"):
        parse_submission(tmp_path / name)


def test_read_submission_names_the_first_line_that_it_cannot_understand(tmp_path):
    path = write_rows(tmp_path, " a,", "b,1", "c,2")
    with pytest.raises(SubmissionError) as caught:
        read_submission(path)
    assert str(caught.value).startswith(f"{path}: line 3: 1 numbers")
    assert "1 more" in str(caught.value)


def test_read_submission_takes_what_is_clear_with_one_warning(tmp_path):
    path = write_rows(tmp_path, "a, 0.5 1 2 3 4", "b, ")
    with pytest.warns(UserWarning, match=r"line 2: .*of 2 departures") as caught:
        boxes = read_submission(path)
    assert len(caught) == 1
    assert boxes == {"a": BOX, "b": []}


def test_read_submission_does_not_ask_where_a_box_lies(tmp_path, recwarn):
    assert read_submission(write_rows(tmp_path, "a,0.5 -9 0 5000 1"))["a"][0].width == 5000
    assert not recwarn.list
