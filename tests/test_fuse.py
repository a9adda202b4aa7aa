"""submission.py fuse: detectors' boxes to a submission, to predictions, to a run."""

import json
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from src import compare, scores, submission
from src.experiments.runs import load_run
from src.prediction.outputs import made_by_path
from src.prediction.presets import Postprocess
from src.scoring.sweep import load_sweep
from src.system.files import write_json
from src.visualizations import plot_numbers, plot_sweep
from tests.made_predictions import random_predictions, save_epoch, with_weak_boxes
from tests.submission_files import strings_of, write_rows


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
    assert json.loads(made_by_path(out).read_text()) == {"inputs": inputs, "fusion": fusion}


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
    made_by = json.loads(made_by_path(out).read_text())["inputs"][0]
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


@pytest.fixture
def folds(tmp_path):
    """Save predictions of two networks for two folds, with weaker boxes."""
    for k, name in enumerate(("a", "b")):
        for fold in range(2):
            part = with_weak_boxes(random_predictions(fold, n_images=30), k)
            ids = np.array([f"patient-{fold}-{i}" for i in range(30)])
            moved = part.boxes_xyxy + np.float32(4 * k)
            made_by = replace(part.provenance, model=name, fold=fold)
            save_epoch(
                tmp_path / f"{name}_fold_{fold}",
                replace(part, ids=ids, boxes_xyxy=moved, provenance=made_by),
            )
    return tmp_path


def fuse_fold(call_main, folder, fold, *flags, out="both_fold_{}"):
    inputs = [folder / f"{name}_fold_{fold}" / "predictions" / "000.npz" for name in "ab"]
    out = folder / out.format(fold)
    return call_main(submission.main, "fuse", *inputs, "--out", out, "--method", "wbf", *flags)


def test_a_fusion_is_a_run_that_is_swept_pooled_compared_and_shown(folds, call_main):
    for fold in range(2):
        outcome = fuse_fold(call_main, folds, fold)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith("30 images, ")
        assert load_run(folds / f"both_fold_{fold}").name == f"both_fold_{fold}"
    runs = [folds / f"both_fold_{fold}" for fold in range(2)]
    best = load_sweep(runs[1] / "scores.npz").best()
    assert best is not None
    assert f"best score {best.score:.4f} at threshold {best.threshold:g}" in outcome.out
    quick = ("--nms", "0.05", "--shrinks", "1", "--n-folds", "2", "--numbers")
    outcome = call_main(scores.main, *runs, *quick)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.partition("both_all_folds: best score")[2].splitlines()
    value = next(line.split()[1] for line in lines if line.strip().startswith("ap_50"))
    assert 0 < float(value) < 1
    places = ("--draws", "100", "--out", folds / "compared")
    outcome = call_main(compare.main, folds / "both", folds / "a", *places)
    assert (outcome.code, outcome.err) == (0, "")
    assert "both, 2 folds, epoch 0" in outcome.out and "ap_50" in outcome.out
    for name, main in (("sweep", plot_sweep.main), ("numbers", plot_numbers.main)):
        outcome = call_main(main, runs[0], "--out", folds / f"{name}.png")
        assert (outcome.code, outcome.err) == (0, "")


def test_a_fusion_is_a_file_of_predictions_for_images_without_labels(folds, call_main):
    """What a sweep of labelled images has chosen is said to `write`, gate and NMS included."""
    outcome = fuse_fold(call_main, folds, 0, out="fused.npz")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(f"\n{folds / 'fused.npz'}\n")
    write = ("write", folds / "fused.npz", "--out", folds / "fused.csv", "--gate", "score_category")
    assert call_main(submission.main, *write, "--threshold", "0.5").code == 0
    content = json.loads((folds / "fused_made_by.json").read_text())
    assert [each["file"] for each in content["members"]] == [
        f"{name}_fold_0/predictions/000.npz" for name in "ab"
    ]
    assert content["fusion"]["method"] == "wbf"


def test_a_fused_runs_description_names_members_and_images(folds, call_main):
    write_json(folds / "b_fold_0" / "experiment.json", {"images": "/some/folder"})
    assert fuse_fold(call_main, folds, 0, "--weights", "3", "1").code == 0
    content = json.loads((folds / "both_fold_0" / "experiment.json").read_text())
    assert (content["model"], content["tag"], content["fold"]) == ("both", "", 0)
    assert content["images"] == "/some/folder"
    named = [(each["file"], each["weight"]) for each in content["members"]]
    assert named == [("../a_fold_0/predictions/000.npz", 0.75),
                     ("../b_fold_0/predictions/000.npz", 0.25)]  # fmt: skip


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("a_fold_0", "a_fold_0: is there already; take another name, or remove it"),
        ("demo_fold_0", "demo_fold_0: is the folder of --model demo; take another name"),
        ("both_fold_1", "both_fold_1: the inputs are of fold 0"),
        ("both_fold_20", "both_fold_20: fold 20 is not from 0 to 19"),
        ("a b_fold_0", "a b_fold_0: a run is named by letters, digits and . + - _ alone"),
    ],
)
def test_a_folder_that_cannot_be_a_new_run_is_refused(folds, call_main, listing, out, words):
    before = listing(folds)
    outcome = fuse_fold(call_main, folds, 0, out=out)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert words in outcome.err
    assert listing(folds) == before


@pytest.mark.parametrize("out", ["fused.npz", "both_fold_0"])
def test_submissions_alone_make_no_predictions(tmp_path, two, call_main, out):
    command = ("fuse", *two, "--out", tmp_path / out, "--method", "wbf")
    outcome = call_main(submission.main, *command)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"{out}: needs a .npz file among the inputs" in outcome.err
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize(
    ("flags", "boxes"),
    [
        ([], "0.5000 0.0 1000.0 20.0 90.0 0.5000 2000.0 0.0 9.0 9.0"),
        (["--image-size", "1010"], "0.5000 0.0 1000.0 20.0 10.0"),
    ],
)
def test_fuse_cuts_boxes_to_the_size_that_it_is_told(tmp_path, two, call_main, flags, boxes):
    for path in two:
        path.write_text("patientId,PredictionString\na,0.5 0 1000 20 90 0.5 2000 0 9 9\n")
    out = tmp_path / "fused.csv"
    command = ("fuse", *two, "--out", out, "--method", "wbf", *flags)
    assert call_main(submission.main, *command).code == 0
    assert rows_of(out) == [f"a,{boxes}"]


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
        (["one.csv", "other.csv", "--out", "one.csv"], "one.csv: one.csv is one of the inputs"),
        (["one.csv", "other.csv", "--out", "a.json"], "a.json: does not end in .csv"),
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
