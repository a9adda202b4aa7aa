import re
from dataclasses import replace

import numpy as np
import pytest

from src.predictions import Predictions
from src.submission import (
    SubmissionError,
    check_ids,
    prediction_strings,
    read_sample_ids,
    write_submission,
)
from tests import oracles
from tests.test_predictions import offsets_of, random_predictions

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
    return prediction_strings(predictions, threshold=threshold, nms=nms)


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
    strings = prediction_strings(predictions, threshold=1.0, nms=0.05)
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
    for text in prediction_strings(random_predictions(), threshold=0.0, nms=0.5).values():
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
    with pytest.raises(SubmissionError, match=r"sample\.csv: (cannot be read|needs rows)"):
        read_sample_ids(path)


def test_a_sample_submission_that_names_a_patient_twice_is_refused(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_text("patientId,PredictionString\na,\nb,\na,\n")
    with pytest.raises(SubmissionError, match="a"):
        check_ids(["a", "b"], read_sample_ids(path), path)


def test_patients_without_image_are_counted_and_named(tmp_path):
    with pytest.raises(SubmissionError, match="2 patients have no image, the first is b"):
        check_ids(["a"], ["c", "b", "a"], tmp_path)


def test_images_that_the_sample_does_not_list_are_counted_and_named(tmp_path):
    with pytest.raises(SubmissionError, match="1 patients are not listed there, the first is z"):
        check_ids(["z", "a"], ["a"], tmp_path)
    check_ids(["b", "a"], ["a", "b"], tmp_path)


def test_a_gate_can_be_chosen():
    predictions = replace(three_boxes(), class_probs=np.array([[0, 0.9, 0.1]] * 2, np.float32))
    strings = prediction_strings(predictions, threshold=0.5, nms=0.05, gate="score_category")
    assert strings["first"].split()[0::5] == ["0.9000"]  # .9 x .1 x 10 > .5; .12 x .1 x 10 < .5
