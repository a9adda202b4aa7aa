import json
import re
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from src import submission
from src.prediction.outputs import prediction_strings
from src.prediction.postprocess import choose_boxes
from src.prediction.presets import Postprocess
from src.prediction.provenance import Combination, NetworkId
from tests.datasets.test_annotations import GOOD_CLASSES, GOOD_LABELS, write_tables
from tests.made_predictions import random_predictions
from tests.submission_files import write_rows, write_sample


def strings_of(predictions, postprocess):
    return prediction_strings(predictions, choose_boxes(predictions, postprocess))


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
    content = json.loads((tmp_path / "out" / "submission.json").read_text())
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
    assert json.loads((tmp_path / "s.json").read_text())["postprocess"] == asdict(postprocess)
    rows = [line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
    assert dict(rows) == strings_of(predictions, postprocess)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "s.csv"], "--threshold"),
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


@pytest.fixture
def two(tmp_path):
    """Make submissions of two detectors."""
    for name, *rows in (
        ("one", "a,0.9 0 0 100 100", "b,0.4 10 10 50 50", "c,"),
        ("other", "a,0.6 0 0 100 60 0.5 500 500 100 100", "b,", "c,"),
    ):
        write_rows(tmp_path, *rows).rename(tmp_path / f"{name}.csv")
    return tmp_path / "one.csv", tmp_path / "other.csv"


def rows_of(path):
    return path.read_text().splitlines()[1:]


@pytest.mark.parametrize(
    ("flags", "rows"),
    [
        (["nms"], ["0.9000 0.0 0.0 100.0 100.0 0.5000 500.0 500.0 100.0 100.0",
                   "0.4000 10.0 10.0 50.0 50.0"]),
        (["nms", "--weights", "1", "2"],
         ["0.6000 0.0 0.0 100.0 60.0 0.5000 500.0 500.0 100.0 100.0",
          "0.2000 10.0 10.0 50.0 50.0"]),
        (["soft-nms", "--decay", "linear", "--threshold", "0.3"],
         ["0.9000 0.0 0.0 100.0 100.0 0.5000 500.0 500.0 100.0 100.0",
          "0.4000 10.0 10.0 50.0 50.0"]),
        (["wbf"], ["0.7500 0.0 0.0 100.0 84.0 0.2500 500.0 500.0 100.0 100.0",
                   "0.2000 10.0 10.0 50.0 50.0"]),
        (["wbf", "--skip-below", "0.5", "--threshold", "0.25"],
         ["0.7500 0.0 0.0 100.0 84.0 0.2500 500.0 500.0 100.0 100.0", ""]),
        (["vote"], ["0.7500 0.0 0.0 100.0 80.0", ""]),
        (["vote", "--average", "median", "--weights", "3", "1"],
         ["0.8250 0.0 0.0 100.0 100.0", ""]),
    ],
)  # fmt: skip
def test_fuse_makes_one_submission_of_two(tmp_path, two, call_main, flags, rows):
    out = tmp_path / "out" / "fused.csv"
    outcome = call_main(submission.main, "fuse", *two, "--out", out, "--method", *flags)
    n_with_boxes = sum(map(bool, rows))
    assert outcome == (0, f"3 images, {n_with_boxes} with boxes\n{out}\n", "")
    assert rows_of(out) == [f"a,{rows[0]}", f"b,{rows[1]}", "c,"]
    assert call_main(submission.main, "check", out).code == 0


def test_fuse_says_beside_what_was_fused_and_how(tmp_path, two, call_main):
    out = tmp_path / "out" / "fused.csv"
    flags = ("--method", "vote", "--weights", "3", "1", "--skip-below", "0.2")
    assert call_main(submission.main, "fuse", *two, "--out", out, *flags).code == 0
    inputs = [{"file": "../one.csv", "weight": 3.0}, {"file": "../other.csv", "weight": 1.0}]
    fusion = {"method": "vote", "iou": 0.5, "min_votes": 2, "average": "mean",
              "skip_below": 0.2, "threshold": 0.0}  # fmt: skip
    assert json.loads(out.with_suffix(".json").read_text()) == {"inputs": inputs, "fusion": fusion}


def test_fuse_does_not_depend_on_the_order_of_its_inputs(tmp_path, two, call_main):
    one, other = two
    other.write_text("\n".join([other.read_text().split("\n")[0], *sorted(rows_of(other))[::-1]]))
    texts = set()
    for method in ("nms", "soft-nms", "wbf", "vote"):
        for order in ((one, other), (other, one)):
            out = tmp_path / "fused.csv"
            outcome = call_main(submission.main, "fuse", *order, "--out", out, "--method", method)
            assert outcome.code == 0
            texts.add(out.read_text())
        assert [row[0] for row in rows_of(out)] == ["a", "b", "c"]
    assert len(texts) == 4


@pytest.mark.parametrize("flags", [[], ["--nms", "0.4", "--shrink", "0.8"]])
def test_fuse_takes_the_candidates_of_predictions_after_nms(tmp_path, call_main, flags):
    predictions = random_predictions(4)
    predictions = replace(predictions, image_sizes=np.full((8, 2), (700, 900)))
    predictions.save(tmp_path / "p.npz")
    nothing = write_rows(tmp_path, *(f"{patient}," for patient in predictions.ids))
    out = tmp_path / "fused.csv"
    command = (tmp_path / "p.npz", nothing, "--out", out, "--method", "nms", "--iou", "1", *flags)
    assert call_main(submission.main, "fuse", *command).code == 0
    postprocess = Postprocess(threshold=0.0, threshold_from="fuse")
    if flags:
        postprocess = replace(postprocess, nms=0.4, shrink=0.8)
    expected = strings_of(predictions, postprocess)
    assert any(expected.values())
    assert dict(row.split(",") for row in rows_of(out)) == expected
    made_by = json.loads(out.with_suffix(".json").read_text())["inputs"][0]
    assert made_by["members"][0]["model"] == "demo"
    assert made_by["postprocess"] == asdict(postprocess)


def test_fuse_joins_predictions_of_other_inputs_and_cuts_boxes_to_their_image(tmp_path, call_main):
    for name, size in (("p", 192), ("q", 320)):
        predictions = random_predictions(4, img_size=size)
        sizes = np.full((8, 2), (512, 600))
        replace(predictions, image_sizes=sizes).save(tmp_path / f"{name}.npz")
    huge = [f"{patient},1 -1e308 500 1.7e308 1e308" for patient in predictions.ids[:7]]
    own = write_rows(tmp_path, *huge, f"{predictions.ids[7]},1 0 600 50 50")
    out = tmp_path / "fused.csv"
    inputs = (tmp_path / "p.npz", own, tmp_path / "q.npz")
    outcome = call_main(submission.main, "fuse", *inputs, "--out", out, "--method", "wbf")
    assert (outcome.code, outcome.err) == (0, "")
    assert rows_of(out)[0].count("0.3333 0.0 500.0 600.0 12.0") == 1
    assert "600.0 50.0 50.0" not in rows_of(out)[7]
    assert call_main(submission.main, "check", out, "--image-size", "600").code == 0


@pytest.mark.parametrize(("flags", "bottom"), [([], "24.0"), (["--image-size", "1010"], "10.0")])
def test_fuse_cuts_boxes_to_the_size_that_it_is_told(tmp_path, two, call_main, flags, bottom):
    for path in two:
        path.write_text("patientId,PredictionString\na,0.5 0 1000 20 90 0.5 2000 0 9 9\n")
    out = tmp_path / "fused.csv"
    command = ("fuse", *two, "--out", out, "--method", "wbf", *flags)
    assert call_main(submission.main, *command).code == 0
    assert rows_of(out) == [f"a,0.5000 0.0 1000.0 20.0 {bottom}"]


def test_fuse_takes_the_sizes_of_the_images_that_are_there(tmp_path, two, call_main):
    (tmp_path / "test").mkdir()
    cv2.imwrite(str(tmp_path / "test" / "a.png"), np.zeros((50, 70), np.uint8))
    out = tmp_path / "fused.csv"
    command = ("fuse", *two, "--out", out, "--method", "wbf", "--data-dir", tmp_path)
    assert call_main(submission.main, *command).code == 0
    assert rows_of(out) == ["a,0.7500 0.0 0.0 70.0 50.0", "b,0.2000 10.0 10.0 50.0 50.0", "c,"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["one.csv"], "one.csv: fuse needs at least two inputs"),
        (["one.csv", "./one.csv"], "one.csv: is given twice"),
        (["one.csv", "none.csv"], "none.csv: cannot be read"),
        (["one.csv", "none.npz"], "none.npz: no such"),
        (["one.csv", "less.csv"], "less.csv: 2 patients are missing, the first is b, which is in "),
        (["more.csv", "one.csv"], "one.csv: 1 patients are missing, the first is d, which is in "),
        (["one.csv", "scale.csv"], "scale.csv: patient b: confidence 5 is not between 0 and 1"),
        (["one.csv", "broken.csv"], "broken.csv: line 2: 2 numbers"),
        (["one.csv", "p.npz"], "the first is patient-0, which is in p.npz"),
        (["p.npz", "q.npz"], "q.npz: the image of patient patient-0 has 900 x 700 pixels, but"),
        (["p.npz", "s.npz", "--image-size", "9"], "--image-size 9: has no effect: p.npz tells"),
        (["one.csv", "other.csv", "--nms", "0.5"], "--nms needs a .npz file"),
        (["one.csv", "other.csv", "--weights", "1"], "--weights: 1 weights for 2 inputs"),
        (["one.csv", "other.csv", "--weights", "1", "0"], "0 is not above 0"),
        (["one.csv", "other.csv", "--weights", "1", "1e7"], "leave that input out"),
        (["one.csv", "other.csv", "--min-votes", "2"], "no effect with --method wbf"),
        (["one.csv", "other.csv", "--iou", "2"], "2 is not between 0 and 1"),
        (["one.csv", "other.csv", "--out", "one.csv"], "one.csv: --out is one of the inputs"),
        (["one.csv", "other.csv", "--out", "a.json"], "a.json: a submission is a CSV file"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:scale.csv. line 3")
def test_fuse_refuses_in_one_line_and_leaves_what_is_there(
    tmp_path, two, call_main, listing, monkeypatch, flags, words
):
    monkeypatch.chdir(tmp_path)
    for name, *rows in (
        ("less", "a,"),
        ("more", "a,", "b,", "c,", "d,"),
        ("scale", "a,", "b,5 1 1 2 2", "c,"),
        ("broken", "a,1 2", "b,", "c,"),
        ("fused", "a,"),
    ):
        write_rows(tmp_path, *rows).rename(tmp_path / f"{name}.csv")
    for name, size in (("p", (1024, 1024)), ("q", (700, 900)), ("s", (1024, 1024))):
        predictions = random_predictions(4)
        replace(predictions, image_sizes=np.full((8, 2), size)).save(tmp_path / f"{name}.npz")
    before = listing(tmp_path)
    arguments = ["fuse", "--out", "fused.csv", "--method", "wbf", *flags]
    outcome = call_main(submission.main, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert listing(tmp_path) == before
