import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from src import submission
from src.challenge.submission_check import check_ids, check_submission
from src.challenge.submission_file import SubmissionError, parse_submission, read_submission
from src.datasets.tables import AnnotationsError, read_sample_ids
from src.prediction.outputs import prediction_strings, write_submission
from src.prediction.postprocess import shrink_boxes
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess
from tests import oracles
from tests.datasets.test_annotations import GOOD_CLASSES, GOOD_LABELS, write_tables
from tests.paths import shared
from tests.prediction.test_predictions import offsets_of, random_predictions

BOXES = [[16, 32, 48, 96], [16, 40, 48, 96], [100, 0, 160.06, 192]]  # the second overlaps the first


def three_boxes(image_sizes=((1024, 1024), (1024, 1024)), scores=(0.9, 0.8, 0.12345)):
    """Three candidates in the first image, none in the second; input of 192 px."""
    return Predictions(
        ids=np.array(["first", "second"]),
        image_sizes=np.array(image_sizes),
        class_probs=np.full((2, 3), 1 / 3, np.float32),
        offsets=offsets_of([3, 0]),
        boxes_xyxy=np.array(BOXES, np.float32),
        scores=np.array(scores, np.float32),
        true_offsets=np.zeros(3, np.int64),
        true_boxes_xyxy=np.zeros((0, 4), np.float32),
        true_categories=np.array([-1, -1]),
        header={"img_size": 192},
    )


def strings_of(predictions, *, threshold=0.0, nms=1.0):
    return prediction_strings(predictions, Postprocess(threshold=threshold, nms=nms))


def test_a_string_holds_confidence_x_y_width_height_of_each_box():
    assert strings_of(three_boxes(((192, 192),) * 2))["first"] == (
        "0.9000 16.0 32.0 32.0 64.0 0.8000 16.0 40.0 32.0 56.0 0.1235 100.0 0.0 60.1 192.0"
    )


def test_boxes_are_in_pixels_of_the_file():
    sizes = ((1920, 960), (192, 192))  # height, width: a factor of 10 down, of 5 across
    assert strings_of(three_boxes(sizes), nms=0.05)["first"].split()[:5] == [
        "0.9000", "80.0", "320.0", "160.0", "640.0"
    ]  # fmt: skip


def test_an_image_without_boxes_has_an_empty_string():
    assert strings_of(three_boxes())["second"] == ""


def test_a_box_counts_when_its_score_times_five_is_greater_than_the_threshold():
    predictions = three_boxes(scores=(0.75, 0.5, 0.25))
    assert len(strings_of(predictions, threshold=2.5)["first"].split()) == 5
    assert len(strings_of(predictions, threshold=2.4999)["first"].split()) == 10


def test_the_weaker_of_two_overlapping_boxes_goes():
    confidences = strings_of(three_boxes(), nms=0.5)["first"].split()[::5]
    assert confidences == ["0.9000", "0.1235"]


def test_strings_agree_with_the_plain_loops():
    predictions = random_predictions(2, n_images=20)
    strings = prediction_strings(predictions, Postprocess(threshold=1.0))
    assert list(strings) == predictions.ids.tolist()
    for image, patient in enumerate(predictions.ids):
        rows = predictions.candidates_of(image)
        boxes, scores = predictions.boxes_xyxy[rows].astype(float), predictions.scores[rows]
        kept = [i for i in oracles.nms(boxes, scores, 0.05) if scores[i] * 5 > 1.0]
        expected = []
        for i in kept:
            x, y, x2, y2 = boxes[i] * 1024 / 192
            expected += [float(scores[i]), x, y, x2 - x, y2 - y]
        found = [float(number) for number in strings[patient].split()]
        np.testing.assert_allclose(found, expected, atol=0.0501)


def test_every_string_is_in_the_format_of_the_challenge():
    box = r"[01]\.\d{4}( \d+\.\d){4}"
    for text in prediction_strings(
        random_predictions(), Postprocess(threshold=0.0, nms=0.5)
    ).values():
        assert text == "" or re.fullmatch(f"{box}( {box})*", text)


def test_a_submission_keeps_the_order_it_is_given(tmp_path):
    path = tmp_path / "new" / "submission.csv"
    write_submission(path, {"a": "0.5 1 2 3 4", "b": ""}, ["b", "a"])
    assert path.read_bytes() == b"patientId,PredictionString\nb,\na,0.5 1 2 3 4\n"


def test_a_submission_that_fails_leaves_the_older_one(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_submission(path, {"a": ""}, ["a", "b"])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


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
    with pytest.raises(AnnotationsError, match=r"sample\.csv: (no such file|not a|has no )"):
        read_sample_ids(path)


def test_a_sample_submission_that_names_a_patient_twice_is_refused(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_text("patientId,PredictionString\na,\nb,\na,\n")
    with pytest.raises(AnnotationsError, match="line 4: patient a again"):
        read_sample_ids(path)


def test_patients_without_image_are_counted_and_named(tmp_path):
    with pytest.raises(SubmissionError, match="2 patients have no image, the first is b"):
        check_ids(["a"], ["c", "b", "a"], tmp_path)


def test_images_that_the_sample_does_not_list_are_counted_and_named(tmp_path):
    with pytest.raises(SubmissionError, match="1 patients are not listed there, the first is z"):
        check_ids(["z", "a"], ["a"], tmp_path)
    check_ids(["b", "a"], ["a", "b"], tmp_path)


def test_a_gate_can_be_chosen():
    predictions = replace(three_boxes(), class_probs=np.array([[0, 0.9, 0.1]] * 2, np.float32))
    strings = prediction_strings(predictions, Postprocess(threshold=0.5, gate="score_category"))
    assert strings["first"].split()[0::5] == ["0.9000"]  # .9 x .1 x 10 > .5; .12 x .1 x 10 < .5


def test_a_shrunk_box_keeps_its_centre():
    settings = Postprocess(threshold=0.0, nms=0.5, shrink=0.5)
    text = prediction_strings(three_boxes(((192, 192),) * 2), settings)
    assert text["first"].split()[:5] == ["0.9000", "24.0", "48.0", "16.0", "32.0"]


def test_shrinking_is_that_of_the_sweep_in_every_image():
    predictions = random_predictions(3)
    full = strings_of(predictions, nms=0.05)
    shrunk = prediction_strings(predictions, Postprocess(threshold=0.0, shrink=0.875))
    for patient, text in full.items():
        boxes = np.array(text.split(), float).reshape(-1, 5)
        found = np.array(shrunk[patient].split(), float).reshape(-1, 5)
        np.testing.assert_allclose(found[:, 1:], shrink_boxes(boxes[:, 1:], 0.875), atol=0.101)
        np.testing.assert_array_equal(found[:, 0], boxes[:, 0])


# The form


def write_rows(folder, *rows, header="patientId,PredictionString"):
    path = folder / "submission.csv"
    path.write_text("".join(f"{row}\n" for row in (header, *rows)))
    return path


def problems_of(path, **options):
    return [
        (fault.line, fault.problem, fault.is_fatal)
        for fault in parse_submission(path, **options).faults
    ]


def test_parse_submission_reads_boxes_and_finds_no_fault(tmp_path):
    path = write_rows(tmp_path, "b,0.5 1 2 3 4 1 0 0 1024 1024", "a,", "c,1e-1 .5 0.5 1. +2")
    parsed = parse_submission(path, image_size=1024)
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
    ("row", "problem"),
    [
        ("b", "nothing after the patientId; without boxes the row is 'b,'"),
        ("b 0.5 1 2 3 4", "no comma after the patientId, but ' '"),
        ("b;0.5 1 2 3 4", "no comma after the patientId, but ';'"),
        ("b\t0.5 1 2 3 4", r"no comma after the patientId, but '\t'"),
        ("b,0.5,1,2,3,4", "5 commas, not 1; single spaces separate the numbers"),
        ("b,0.5 1 2 3", "4 numbers, not 5 for each box (confidence x y width height)"),
        ("b,0.5 1 2 3 4 5", "6 numbers, not 5 for each box (confidence x y width height)"),
        ("b,0.5 1 x 3 4", "number 3, 'x', is not a finite number"),
        ("b,0.5 1 nan 3 4", "number 3, 'nan', is not a finite number"),
        ("b,0.5 1 2 -inf 4", "number 4, '-inf', is not a finite number"),
        ("b,0.5 1 2 3 1e999", "number 5, '1e999', is not a finite number"),
        ("b,0.5 1_0 2 3 4", "number 2, '1_0', is not a finite number"),
        ("b,0.5 0x1 2 3 4", "number 2, '0x1', is not a finite number"),
        ("b,0.5 ١ 2 3 4", "number 2, '١', is not a finite number"),
        (",0.5 1 2 3 4", "'' is no patientId"),
        ("b\0,", r"'b\x00' is no patientId"),
        ("a,", "patient a again, after line 2"),
        ('"b,', "a quotation mark without its partner: unexpected end of data"),
        (f"b,{'9' * 50}x 1 2 3 4", f"number 1, '{'9' * 40}...', is not a finite number"),
    ],
)
def test_parse_submission_finds_what_cannot_be_understood(tmp_path, row, problem):
    path = write_rows(tmp_path, "a,", row, "c,0.5 1 2 3 4")
    parsed = parse_submission(path)
    assert (3, problem, True) in problems_of(path)
    assert {fault.line for fault in parsed.faults} == {3}
    assert set(parsed.boxes) == {"a", "c"}


BOX = [(0.5, 1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("row", "problem", "boxes"),
    [
        ("b, ", "spaces after the comma, where a row without boxes has nothing", []),
        ('b,""', "quotation marks; both cells are written without", []),
        ('"b","0.5 1 2 3 4"', "quotation marks; both cells are written without", BOX),
        ("b, 0.5 1 2 3 4", "a space at the start or the end of the PredictionString", BOX),
        ("b,0.5 1 2 3 4 ", "a space at the start or the end of the PredictionString", BOX),
        ("b,0.5  1 2 3 4", "numbers separated by more than one space, or by something else", BOX),
        ("b,0.5 1\t2 3 4", "numbers separated by more than one space, or by something else", BOX),
        (" b,0.5 1 2 3 4", "spaces around the patientId", BOX),
        ("b,1.5 1 2 3 4", "box 1: confidence 1.5 is not between 0 and 1", [(1.5, 1, 2, 3, 4)]),
        ("b,-1 1 2 3 4", "box 1: confidence -1 is not between 0 and 1", [(-1, 1, 2, 3, 4)]),
        ("b,0.5 1 2 0 4", "box 1: width 0 is not positive", [(0.5, 1, 2, 0, 4)]),
        ("b,0.5 1 2 3 -4", "box 1: height -4 is not positive", [(0.5, 1, 2, 3, -4)]),
        ("b,0.5 -1 2 3 4", "box 1: outside the image: x -1, width 3, of 64", [(0.5, -1, 2, 3, 4)]),
        ("b,0.5 1 61 3 4", "box 1: outside the image: y 61, height 4, of 64", [(0.5, 1, 61, 3, 4)]),
    ],
)
def test_parse_submission_finds_what_is_wrong_but_clear(tmp_path, row, problem, boxes):
    path = write_rows(tmp_path, "a,", row, "c,")
    assert problems_of(path, image_size=64) == [(3, problem, False)]
    assert parse_submission(path, image_size=64).boxes["b"] == boxes


def test_parse_submission_names_each_wrong_box_and_number(tmp_path):
    path = write_rows(tmp_path, "a,2 0 0 1 1 0.5 0 0 1 1 0.5 0 0 65 0", "b,x y 0 0 0")
    assert [(line, text[:12]) for line, text, _ in problems_of(path, image_size=64)] == [
        (2, "box 1: confi"), (2, "box 3: outsi"), (2, "box 3: heigh"),
        (3, "number 1, 'x"), (3, "number 2, 'y"),
    ]  # fmt: skip


def test_parse_submission_allows_what_rounding_to_one_decimal_adds(tmp_path):
    path = write_rows(tmp_path, "a,0.5 0.1 0 64 64")
    assert problems_of(path, image_size=64) == []
    path = write_rows(tmp_path, "a,0.5 0.2 0 64 64")
    assert len(problems_of(path, image_size=64)) == 1


def test_parse_submission_finds_an_empty_line(tmp_path):
    path = write_rows(tmp_path, "a,", "", "b,", "")
    assert problems_of(path) == [(3, "an empty line", False), (5, "an empty line", False)]


def test_parse_submission_finds_bytes_that_are_not_utf_8(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_bytes(b"patientId,PredictionString\na,\nb,\xe9\n\xc3\xa9,\n")
    assert (3, "not UTF-8: byte 0xe9", True) in problems_of(path)
    assert set(parse_submission(path).boxes) == {"a", "é"}


def test_parse_submission_finds_a_byte_order_mark(tmp_path):
    path = write_rows(tmp_path, "a,")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert problems_of(path) == [(1, "starts with a byte order mark; UTF-8 needs none", False)]


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
    expected = f"the header is {header!r}, not 'patientId,PredictionString'"
    assert problems_of(path) == [(1, expected, is_fatal)]


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
    assert str(caught.value).startswith(f"{path}: line 3: 1 numbers, not 5")
    assert str(caught.value).endswith("(and 1 more faults)")


def test_read_submission_takes_what_is_clear_with_one_warning(tmp_path):
    path = write_rows(tmp_path, "a, 0.5 1 2 3 4", "b, ")
    with pytest.warns(UserWarning, match=r"line 2: a space.*of 2 departures") as caught:
        boxes = read_submission(path)
    assert len(caught) == 1
    assert boxes == {"a": BOX, "b": []}


def test_read_submission_does_not_ask_where_a_box_lies(tmp_path, recwarn):
    assert read_submission(write_rows(tmp_path, "a,0.5 -9 0 5000 1"))["a"][0].width == 5000
    assert not recwarn.list


# Against the sample


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_text("patientId,PredictionString\na,0.5 0 0 100 100\nb,\nc,\n")
    return path


def test_check_submission_takes_the_patients_in_any_order(tmp_path, sample):
    path = write_rows(tmp_path, "c,", "a,0.5 1 2 3 4", "b,")
    assert check_submission(path, sample).faults == []


def test_check_submission_lists_missing_and_extra_patients_with_their_lines(tmp_path, sample):
    path = write_rows(tmp_path, "a,", "x,", "y,1")
    found = [(fault.line, fault.problem) for fault in check_submission(path, sample).faults]
    assert found == [
        (3, f"patient 'x' is not in {sample}"),
        (4, "1 numbers, not 5 for each box (confidence x y width height)"),
        (4, f"patient 'y' is not in {sample}"),
        (None, f"patient b is missing, line 3 of {sample}"),
        (None, f"patient c is missing, line 4 of {sample}"),
    ]


def test_check_submission_does_not_miss_a_patient_whose_row_is_broken(tmp_path, sample):
    path = write_rows(tmp_path, "a,1", "b", "c;0.5 1 2 3 4")
    assert {fault.line for fault in check_submission(path, sample).faults} == {2, 3, 4}


def test_check_submission_takes_what_was_written(tmp_path):
    predictions = random_predictions(5, n_images=40)
    path = tmp_path / "own.csv"
    for shrink in (1.0, 0.875):
        strings = prediction_strings(
            predictions, Postprocess(threshold=0.0, nms=0.5, shrink=shrink)
        )
        write_submission(path, strings, strings)
        parsed = check_submission(path, path)
        assert parsed.faults == []
        assert sum(map(len, parsed.boxes.values())) > 40


def test_check_submission_takes_kaggles_sample():
    path = shared("annotations") / "stage_2_sample_submission.csv"
    parsed = check_submission(path, path)
    assert parsed.faults == []
    assert len(parsed.boxes) == 3000


# The command line


def test_check_prints_every_fault_and_a_verdict(tmp_path, sample, call_main):
    path = write_rows(tmp_path, "a,0.5 0 0 2000 1", "b,1 2", "b,")
    outcome = call_main(submission.main, "check", path, "--sample", sample)
    assert outcome.code == 2
    assert outcome.out.splitlines() == [
        f"{path}: line 2: box 1: outside the image: x 0, width 2000, of 1024",
        f"{path}: line 3: 2 numbers, not 5 for each box (confidence x y width height)",
        f"{path}: line 4: patient b again, after line 3",
        f"{path}: patient c is missing, line 4 of {sample}",
    ]
    assert outcome.err == f"error: {path}: 4 faults among 2 images\n"


def test_check_says_that_all_is_well(tmp_path, sample, call_main):
    path = write_rows(tmp_path, "a,0.5 0 0 200 1", "b,", "c,")
    outcome = call_main(submission.main, "check", path, "--sample", sample, "--image-size", "200")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == f"{path}: agrees with the form and {sample}: 3 images, 1 boxes\n"


def test_check_knows_other_sizes_of_images(tmp_path, call_main):
    path = write_rows(tmp_path, "a,0.5 0 0 200 1")
    outcome = call_main(submission.main, "check", path, "--image-size", "199")
    assert (outcome.code, outcome.out.count("\n")) == (2, 1)


def test_write_makes_the_submission_of_saved_predictions(tmp_path, call_main):
    predictions = random_predictions(4)
    predictions.save(tmp_path / "p.npz")
    sample = tmp_path / "sample.csv"
    order = sorted(predictions.ids.tolist(), reverse=True)
    sample.write_text("patientId,PredictionString\n" + "".join(f"{p},\n" for p in order))
    out = tmp_path / "out" / "submission.csv"
    outcome = call_main(
        submission.main, "write", tmp_path / "p.npz", "--out", out, "--threshold", "1.5",
        "--nms", "0.3", "--gate", "score_category", "--shrink", "0.875", "--sample", sample,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    settings = Postprocess(threshold=1.5, nms=0.3, gate="score_category", shrink=0.875)
    expected = prediction_strings(predictions, settings)
    assert any(expected.values())
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == order
    assert dict(rows) == expected
    n_with_boxes = sum(map(bool, expected.values()))
    assert outcome.out == f"8 images, {n_with_boxes} with boxes\n{out}\n"


def test_write_says_beside_where_the_submission_comes_from(tmp_path, call_main):
    random_predictions(4, epoch=2).save(tmp_path / "p.npz")
    out = tmp_path / "out" / "submission.csv"
    arguments = ["write", tmp_path / "p.npz", "--out", out, "--threshold", "1.5", "--nms", "0.3"]
    assert call_main(submission.main, *arguments).code == 0
    content = json.loads((tmp_path / "out" / "submission.json").read_text())
    assert content["predictions"] == "../p.npz"
    assert content["members"][0]["epoch"] == 2
    settings = Postprocess(threshold=1.5, threshold_from="flag", nms=0.3)
    assert content["postprocess"] == asdict(settings)


SECOND_PLACE = Postprocess(preset="second-place", threshold_from="preset")


@pytest.mark.parametrize(
    ("header", "settings"),
    [
        ({}, replace(SECOND_PLACE, shrink=0.875)),
        (
            {"ensemble": {"size_rule": "percentile", "k": 1.6}},
            replace(SECOND_PLACE, size_rule="percentile", k=1.6),
        ),
        ({"ensemble": {"size_rule": "mean", "k": None}}, SECOND_PLACE),
    ],
    ids=["one network", "percentiles", "means"],
)
def test_write_keeps_how_the_sizes_were_combined(tmp_path, call_main, header, settings):
    predictions = random_predictions(4)
    replace(predictions, header=predictions.header | header).save(tmp_path / "p.npz")
    arguments = ["write", tmp_path / "p.npz", "--out", tmp_path / "s.csv"]
    outcome = call_main(submission.main, *arguments, "--postprocess", "second-place")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "s.json").read_text())["postprocess"] == asdict(settings)
    rows = [line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
    assert dict(rows) == prediction_strings(predictions, settings)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "s.csv"], "--postprocess plain takes the threshold from check_metric"),
        (["--out", "s.json", "--threshold", "1"], "s.json: a submission is a CSV file"),
    ],
)
def test_write_asks_for_a_threshold_and_a_csv_file(tmp_path, call_main, flags, words):
    random_predictions().save(tmp_path / "p.npz")
    outcome = call_main(submission.main, "write", tmp_path / "p.npz", *flags)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gate", "sum"], "invalid choice: 'sum'"),
        (["--shrink", "0"], "0 is not above 0"),
        (["--nms", "5"], "5 is not between 0 and 1"),
        (["--sample", "none.csv"], "none.csv: no such file"),
    ],
)
def test_write_refuses_a_wrong_setting_in_one_line(tmp_path, call_main, flags, words):
    random_predictions().save(tmp_path / "p.npz")
    arguments = ["write", tmp_path / "p.npz", "--out", tmp_path / "s.csv", "--threshold", "1"]
    outcome = call_main(submission.main, *arguments, *flags)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_write_refuses_predictions_of_other_images_than_the_samples(tmp_path, call_main):
    random_predictions(n_images=2).save(tmp_path / "p.npz")
    sample = write_rows(tmp_path, "patient-0,", "patient-1,", "patient-2,")
    out = tmp_path / "out.csv"
    arguments = [tmp_path / "p.npz", "--out", out, "--threshold", "1", "--sample", sample]
    outcome = call_main(submission.main, "write", *arguments)
    assert outcome.code == 2
    assert outcome.err == f"error: {sample}: 1 patients have no image, the first is patient-2\n"
    assert not out.exists()


@pytest.mark.parametrize("arguments", [[], ["check"], ["check", "none.csv"], ["stats", "none.csv"],
                                       ["write", "none.npz", "--out", "o", "--threshold", "1"],
                                       ["check", "a", "--image-size", "0"]])  # fmt: skip
def test_a_users_mistake_is_one_line(call_main, arguments):
    outcome = call_main(submission.main, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1


def test_stats_sets_a_submission_beside_the_training_set(tmp_path, call_main):
    labels_path, classes_path = write_tables(tmp_path, GOOD_LABELS, GOOD_CLASSES)
    labels_path.rename(tmp_path / "stage_2_train_labels.csv")
    classes_path.rename(tmp_path / "stage_2_detailed_class_info.csv")
    path = write_rows(tmp_path, "a,0.5 0 0 10 20 0.25 0 0 30 20", "b,0.75 0 0 50 80", "c,", "d,")
    outcome = call_main(submission.main, "stats", path, "--data-dir", tmp_path)
    assert outcome.code == 0, outcome.err
    rows = [re.split("  +", line) for line in outcome.out.splitlines()]
    assert rows == [
        ["", "submission.csv", "training set"],
        ["images", "4", "3"],
        ["images with boxes", "2 (50.0 %)", "1 (33.3 %)"],
        ["boxes", "3", "2"],
        ["boxes per image", "0.750", "0.667"],
        ["boxes per image with boxes", "1.500", "2.000"],
        ["most boxes in an image", "2", "2"],
        ["width", "mean 30.0, median 30.0", "mean 30.0, median 30.0"],
        ["height", "mean 40.0, median 20.0", "mean 40.0, median 40.0"],
        ["area", "mean 1600, median 600", "mean 1200, median 1200"],
        ["confidence", "mean 0.500, median 0.500", "-"],
    ]


def test_stats_describes_a_submission_without_boxes(tmp_path, call_main):
    outcome = call_main(submission.main, "stats", write_rows(tmp_path, "a,", "b,"))
    rows = dict(re.split("  +", line) for line in outcome.out.splitlines())
    assert (rows["boxes"], rows["width"], rows["boxes per image with boxes"]) == ("0", "-", "-")
