import json
import re
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from src import submission
from src.prediction.presets import Postprocess
from src.prediction.provenance import Combination, NetworkId
from tests.datasets.test_annotations import GOOD_CLASSES, GOOD_LABELS, write_tables
from tests.made_predictions import random_predictions
from tests.submission_files import strings_of, write_rows, write_sample


@pytest.fixture
def sample(tmp_path):
    return write_sample(tmp_path)


def test_check_prints_every_fault_and_a_verdict(tmp_path, sample, call_main):
    path = write_rows(tmp_path, "a,0.5 0 0 2000 1", "b,1 2", "b,")
    outcome = call_main(submission.main, "check", path, "--sample", sample)
    assert outcome.code == 2
    starts = [
        f"{path}: line 2: box 1: outside the image",
        f"{path}: line 3: 2 numbers",
        f"{path}: line 4: patient b again",
        f"{path}: patient c is missing",
    ]
    for line, start in zip(outcome.out.splitlines(), starts, strict=True):
        assert line.startswith(start)
    assert outcome.err.startswith(f"error: {path}: 4 faults")
    assert outcome.err.count("\n") == 1


def test_check_says_that_all_is_well(tmp_path, sample, call_main):
    path = write_rows(tmp_path, "a,0.5 0 0 200 1", "b,", "c,")
    outcome = call_main(submission.main, "check", path, "--sample", sample, "--image-size", "200")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith(f"{path}: agrees")
    assert str(sample) in outcome.err
    assert "3 images, 1 boxes" in outcome.err


def test_check_knows_other_sizes_of_images(tmp_path, call_main):
    path = write_rows(tmp_path, "a,0.5 0 0 200 1")
    outcome = call_main(submission.main, "check", path, "--image-size", "199")
    assert (outcome.code, outcome.out.count("\n")) == (2, 1)


def test_check_takes_the_sizes_of_the_images_that_are_there(tmp_path, call_main):
    for split, name, size in (("test", "a b", (200, 100)), ("train", "c", (50, 50))):
        (tmp_path / split).mkdir()
        cv2.imwrite(str(tmp_path / split / f"{name}.png"), np.zeros(size, np.uint8))
    path = write_rows(tmp_path, "a b,0.5 0 0 100 200", "c,0.5 0 0 50 50")
    command = ("check", path, "--data-dir", tmp_path)
    assert call_main(submission.main, *command).code == 0
    write_rows(tmp_path, "a b,0.5 0 0 101 200", "c,0.5 0 0 50 51", "unknown,0.5 0 0 9999 1")
    outcome = call_main(submission.main, *command)
    assert outcome.code == 2
    first, second = outcome.out.splitlines()
    assert first.endswith("outside the image: x 0, width 101, of 100")
    assert second.endswith("outside the image: y 0, height 51, of 50")
    write_rows(tmp_path, "unknown,0.5 0 0 9999 1")
    assert "no images of the submission's patients" in call_main(submission.main, *command).err


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
    postprocess = Postprocess(threshold=1.5, nms=0.3, gate="score_category", shrink=0.875)
    expected = strings_of(predictions, postprocess)
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
    content = json.loads((tmp_path / "out" / "submission_made_by.json").read_text())
    assert content["predictions"] == "../p.npz"
    assert content["members"][0]["epoch"] == 2
    postprocess = Postprocess(threshold=1.5, threshold_from="flag", nms=0.3)
    assert content["postprocess"] == asdict(postprocess)


SECOND_PLACE = Postprocess(preset="second-place", threshold_from="preset")


def combined(size_rule, k):
    members = (NetworkId(model="demo"), NetworkId(model="other"))
    return Combination(members=members, hflip=False, size_rule=size_rule, k=k)


@pytest.mark.parametrize(
    ("ensemble", "postprocess"),
    [
        (None, replace(SECOND_PLACE, shrink=0.875)),
        (combined("percentile", 1.6), replace(SECOND_PLACE, size_rule="percentile", k=1.6)),
        (combined("mean", None), SECOND_PLACE),
    ],
    ids=["one network", "percentiles", "means"],
)
def test_write_keeps_how_the_sizes_were_combined(tmp_path, call_main, ensemble, postprocess):
    predictions = random_predictions(4)
    made_by = replace(predictions.provenance, ensemble=ensemble)
    replace(predictions, provenance=made_by).save(tmp_path / "p.npz")
    arguments = ["write", tmp_path / "p.npz", "--out", tmp_path / "s.csv"]
    preset = ("--postprocess", "second-place") if ensemble is None else ()
    outcome = call_main(submission.main, *arguments, *preset)
    assert outcome.code == 0, outcome.err
    made_by = json.loads((tmp_path / "s_made_by.json").read_text())
    assert made_by["postprocess"] == asdict(postprocess)
    rows = [line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
    assert dict(rows) == strings_of(predictions, postprocess)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "s.csv"], "--threshold"),
        (["--out", "s.json", "--threshold", "1"], "s.json: does not end in .csv"),
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


def test_results_take_no_input_s_place_and_no_others(tmp_path, call_main, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random_predictions().save(tmp_path / "p.npz")
    random_predictions().save(tmp_path / "p.csv")  # a name is no proof of what is in a file
    (tmp_path / "p_made_by.json").write_text("[]")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for command in (
        ("write", "p.npz", "--threshold", "1", "--out", "p.npz"),
        ("write", "p.csv", "--threshold", "1", "--out", "p.csv"),
        ("coco", "p.csv", "--threshold", "1", "--out", "p.json", "--images", "p_made_by.json"),
        ("from-coco", "p_made_by.json", "--out", "p.csv", "--sample", "p.csv"),
    ):
        outcome = call_main(submission.main, *command)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert outcome.err.startswith("error: --out p.")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "q.json").write_text("my own")
    assert (
        call_main(submission.main, "write", "p.npz", "--threshold", "1", "--out", "q.csv").code == 0
    )
    assert (tmp_path / "q.json").read_text() == "my own"


def test_write_refuses_predictions_of_other_images_than_the_samples(tmp_path, call_main):
    random_predictions(n_images=2).save(tmp_path / "p.npz")
    sample = write_rows(tmp_path, "patient-0,", "patient-1,", "patient-2,")
    out = tmp_path / "out.csv"
    arguments = [tmp_path / "p.npz", "--out", out, "--threshold", "1", "--sample", sample]
    outcome = call_main(submission.main, "write", *arguments)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {sample}: 1 patients")
    assert outcome.err.endswith("patient-2\n")
    assert outcome.err.count("\n") == 1
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
