"""Models, folds and epochs combined, and the ways to choose boxes, as a user asks for them."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from src import scores, train_runner
from src.datasets.loaders import load_labelled_images
from src.experiments.runs import Run, load_run, read_description
from src.experiments.table import EXPERIMENTS
from src.prediction.outputs import made_by_path
from src.prediction.predictions import load_predictions
from src.prediction.provenance import Combination, NetworkId
from src.scoring.grid import SCORE_THRESHOLDS
from src.scoring.sweep import ScoredRun, load_sweep
from tests.made_predictions import make_sweep

PREDICT = ("--action", "generate_predictions", "--num-workers", "0")


@pytest.fixture
def predict(call_main, talkative, phantoms, tmp_path, monkeypatch):
    """Return a function that predicts the test images and gives back the folder of the results."""
    monkeypatch.setitem(EXPERIMENTS, "twin", EXPERIMENTS["demo"])

    def run(*flags, out="out", ok=True):
        folders = ("--data-dir", phantoms, "--output-dir", talkative, "--out", tmp_path / out)
        images = ("--input", phantoms / "stage_2_test_images")
        outcome = call_main(train_runner.main, *PREDICT, *folders, *images, *flags)
        if not ok:
            return outcome
        assert outcome.code == 0, outcome.err
        return tmp_path / out

    return run


def boxes_of(folder):
    with (folder / "boxes.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["x"]]
    return np.array([[float(row[c]) for c in ("x", "y", "width", "height")] for row in rows])


def settings_of(folder):
    return json.loads((folder / "boxes_made_by.json").read_text())["postprocess"]


def probs_of(folder):
    return load_predictions(folder / "predictions.npz").class_probs


def test_one_network_by_the_flags_of_an_ensemble_writes_the_same_bytes(predict):
    alone = predict("--model", "demo", "--epoch", "1", out="alone") / "001"
    for i, flags in enumerate((["--folds", "0"], ["--run-weights", "3"])):
        same = predict("--model", "demo", "--epochs", "1", *flags, out=f"same {i}")
        for table in (same / "boxes.csv", same / "submission.csv"):
            for path in (table, made_by_path(table)):
                assert path.read_bytes() == (alone / path.name).read_bytes()
        ours, its = (load_predictions(f / "predictions.npz").provenance for f in (same, alone))
        assert ours == its
    assert len(boxes_of(alone)) > 10


def test_an_ensemble_takes_every_fold_of_every_model(predict):
    out = predict("--model", "demo", "twin", "--folds", "0", "1", "--epochs", "1")
    made_by = load_predictions(out / "predictions.npz").provenance
    members = [(network.model, network.fold, network.epoch) for network in made_by.networks]
    assert members == [("demo", 0, 1), ("demo", 1, 1), ("twin", 0, 1), ("twin", 1, 1)]
    assert {network.weight for network in made_by.networks} == {1 / 4}
    assert (made_by.model, made_by.fold, made_by.tag) == ("demo+twin", None, "ensemble")


def test_an_ensemble_of_models_has_a_folder_of_its_own(call_main, talkative, phantoms, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "twin", EXPERIMENTS["demo"])
    outcome = call_main(
        train_runner.main, *PREDICT, "--data-dir", phantoms, "--output-dir", talkative,
        "--model", "demo", "twin", "--epoch", "0", "--split", "test",
    )  # fmt: skip
    out = talkative / "demo+twin_ensemble" / "test"
    line, place = outcome.out.splitlines()
    assert re.fullmatch(r"2 members: 3 images, \d with boxes at threshold 0.3", line)
    assert place == str(out)
    rows = (out / "submission.csv").read_text().splitlines()
    sample = (phantoms / "stage_2_sample_submission.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == [row.split(",")[0] for row in sample]


def test_results_say_in_experiment_json_how_they_were_made(predict, talkative, phantoms):
    out = predict("--model", "demo", "--folds", "0", "1", "--epochs", "1", "--threshold", "0.2")
    content = json.loads((out / "experiment.json").read_text())
    assert (content["model"], content["tag"], content["fold"]) == ("demo", "ensemble", None)
    assert [(m["fold"], m["epoch"]) for m in content["members"]] == [(0, 1), (1, 1)]
    assert content["postprocess"] == settings_of(out)
    assert content["images"] == str(phantoms / "stage_2_test_images")
    assert "--folds" in content["command"]


def test_results_of_others_are_not_written_over_unless_told(predict):
    flags = ("--model", "demo", "--epoch", "1")
    path = predict(*flags) / "001" / "experiment.json"
    own = json.loads(path.read_text())
    for change, words in (
        ({"model": "dem", "tag": "o"}, "belongs to --model dem --run o; take another"),
        ({"images": "/elsewhere"}, "holds what was found with images /elsewhere; --overwrite"),
        ({"fold": 1}, "holds what was found with fold 1; --overwrite replaces it"),
        ({"members": []}, "holds what other networks found; --overwrite replaces"),
    ):
        path.write_text(json.dumps(own | change))
        outcome = predict(*flags, ok=False)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert f"{path.parent}: {words}" in outcome.err
    predict(*flags, "--overwrite")
    assert json.loads(path.read_text())["images"] == own["images"]


@pytest.fixture
def predict_fold(call_main, talkative, phantoms, tmp_path, monkeypatch):
    """Return a function that predicts validation images, by networks whose folder it may fill."""
    monkeypatch.setitem(EXPERIMENTS, "twin", EXPERIMENTS["demo"])
    output_dir = tmp_path / "runs"
    shutil.copytree(talkative, output_dir, copy_function=os.link)

    def run(*flags, ok=True):
        folders = ("--data-dir", phantoms, "--output-dir", output_dir)
        outcome = call_main(train_runner.main, *PREDICT, *folders, *flags)
        assert not ok or outcome.code == 0, outcome.err
        return outcome if not ok else output_dir

    return run


def test_an_ensemble_of_one_fold_predicts_that_fold(predict_fold, phantoms):
    output_dir = predict_fold("--model", "demo", "twin", "--fold", "1", "--epochs", "0", "1")
    run = Run("demo+twin", 1, "ensemble", output_dir)
    assert load_run(run.dir) == run
    predictions = load_predictions(run.predictions_path(1))
    valid = load_labelled_images(phantoms, 1).valid
    assert predictions.ids.tolist() == [record.patient_id for record in valid]
    assert predictions.has_truth
    networks = predictions.provenance.networks
    described = {(network.model, network.fold, network.epoch) for network in networks}
    assert described == {(model, 1, epoch) for model in ("demo", "twin") for epoch in (0, 1)}
    assert run.submission_path("valid", 1).exists()


def test_the_ensembles_of_all_folds_are_scored_as_one(predict_fold, call_main):
    output_dir = predict_fold("--model", "demo", "--tta", "hflip", "--epoch", "1")
    folders = [Run("demo", 0, "ensemble", output_dir).dir]
    for fold in (1, 2, 3):  # the same predictions, under the names of other patients and folds
        folders.append(Run("demo", fold, "ensemble", output_dir).dir)
        found = load_predictions(folders[0] / "predictions" / "001.npz")
        ids = np.char.add(found.ids, f" {fold}")
        made_by = replace(found.provenance, fold=fold)
        replace(found, ids=ids, provenance=made_by).save(folders[-1] / "predictions" / "001.npz")
    outcome = call_main(scores.main, *folders, "--gates", "score", "--shrinks", "1")
    assert outcome.code == 0, outcome.err
    sweep = load_sweep(output_dir / "demo_ensemble_all_folds" / "sweep.npz")
    assert sweep.epochs == (1,)
    members = (NetworkId(model="demo", tag="", epoch=1),)
    shared = Combination(members=members, hflip=True, size_rule="percentile", k=0.9)
    assert sweep.run == ScoredRun(model="demo", fold=None, tag="ensemble", ensemble=shared)


def test_an_ensemble_says_where_the_images_lie_to_any_folder(predict_fold, phantoms, monkeypatch):
    monkeypatch.chdir(phantoms.parent)
    output_dir = predict_fold(
        "--model", "demo", "--tta", "hflip", "--epoch", "1", "--data-dir", phantoms.name
    )
    content = read_description(Run("demo", 0, "ensemble", output_dir).experiment_path)
    assert content["images"] == str(phantoms / "stage_2_train_images")


def test_predictions_of_another_ensemble_are_not_taken_for_its_own(predict_fold):
    predict_fold("--model", "demo", "--folds", "0", "--epochs", "0", "1")
    outcome = predict_fold("--model", "demo", "--epoch", "1", "--tta", "hflip", ok=False)
    assert "001.npz: is of another ensemble; --overwrite makes it again" in outcome.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--folds", "0", "1"], "--split valid takes networks of one fold"),
        (
            ["--action", "train", "--run", "my_ensemble"],
            'tags ending in "ensemble" are reserved for ensembles',
        ),
    ],
)
def test_what_would_mix_folds_or_names_is_refused(predict_fold, flags, words):
    outcome = predict_fold("--model", "demo", *flags, ok=False)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err


def test_the_weight_of_a_run_is_shared_out_among_its_epochs(predict):
    runs = ("--model", "demo", "twin", "--folds", "0", "1")
    out = predict(*runs, "--epochs", "0", "1", "--run-weights", "3", "0", "0", "1")
    networks = load_predictions(out / "predictions.npz").provenance.networks
    assert [(n.model, n.fold, n.epoch, n.weight) for n in networks] == [
        ("demo", 0, 0, 0.375), ("demo", 0, 1, 0.375), ("twin", 1, 0, 0.125), ("twin", 1, 1, 0.125)
    ]  # fmt: skip


def test_a_weighted_ensemble_is_the_weighted_mean_of_its_runs(predict):
    one = probs_of(predict("--model", "demo", "--epoch", "0", out="a") / "000")
    other = probs_of(predict("--model", "twin", "--epoch", "0", out="b") / "000")
    both = predict("--model", "demo", "twin", "--epoch", "0", "--run-weights", "3", "1")
    assert not np.allclose(one, other, atol=1e-3)
    np.testing.assert_allclose(probs_of(both), (3 * one + other) / 4, atol=1e-6)


def test_an_ensemble_draws_what_it_found_when_asked(predict):
    out = predict("--folds", "0", "1", "--model", "demo", "--epoch", "0", "--overlays")
    ids = load_predictions(out / "predictions.npz").ids.tolist()
    assert sorted(path.stem for path in (out / "overlays").iterdir()) == ids


def test_the_presets_combine_sizes_by_their_own_rule(predict):
    members = ("--model", "demo", "--folds", "0", "1", "--epoch", "0")
    areas = {}
    for preset in ("plain", "second-place", "paper"):
        out = predict(*members, "--postprocess", preset, out=preset)
        predictions = load_predictions(out / "predictions.npz")
        x1, y1, x2, y2 = predictions.boxes_xyxy.T.astype(float)
        areas[preset] = ((x2 - x1) * (y2 - y1)).mean()
        ensemble = predictions.provenance.ensemble
        assert ensemble is not None
        sizes = {"size_rule": ensemble.size_rule, "k": ensemble.k}
        assert settings_of(out) == settings_of(out) | sizes | {"preset": preset}
    assert areas["paper"] < areas["second-place"] < areas["plain"]


def test_the_second_place_shrinks_the_boxes_of_one_network(predict):
    flags = ("--model", "demo", "--epoch", "0", "--threshold", "0.3")
    full = boxes_of(predict(*flags, out="plain") / "000")
    shrunk = boxes_of(predict(*flags, "--postprocess", "second-place", out="second") / "000")
    np.testing.assert_allclose(shrunk[:, 2:], 0.875 * full[:, 2:], atol=0.101)
    np.testing.assert_allclose(
        shrunk[:, :2] + shrunk[:, 2:] / 2, full[:, :2] + full[:, 2:] / 2, atol=0.151
    )


def test_results_do_not_depend_on_the_number_of_workers(predict):
    flags = ("--model", "demo", "--epoch", "0", "--batch-size", "2")
    outs = [predict(*flags, "--num-workers", n, out=f"by {n}") / "000" for n in ("0", "2")]
    for name in ("boxes.csv", "submission.csv"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    assert len(boxes_of(outs[0])) > 10


def test_results_do_not_depend_on_the_batch_size(predict):
    # PyTorch's kernels differ in the last bit between batch sizes, which may tip the rounding of a
    # number: the same boxes, each number within one unit of its last digit.
    outs = [predict("--model", "demo", "--epoch", "0", "--batch-size", n, out=f"by {n}") / "000"
            for n in ("1", "3")]  # fmt: skip
    tables = [list(csv.reader((out / "boxes.csv").open(newline=""))) for out in outs]
    assert [row[:2] for row in tables[0]] == [row[:2] for row in tables[1]]
    ours, its = (np.array([row[2:] for row in table[1:]], dtype=float) for table in tables)
    assert len(ours) > 10
    np.testing.assert_allclose(ours[:, :4], its[:, :4], atol=0.101)
    np.testing.assert_allclose(ours[:, 4:], its[:, 4:], atol=1.01e-4)


@pytest.fixture
def scored(talkative, tmp_path):
    """Return a run with a checkpoint, and scores that were best at threshold .7 by score x 5."""
    run = Run("demo", 0, "", tmp_path / "scored")
    run.checkpoint_path(0).parent.mkdir(parents=True)
    run.checkpoint_path(0).hardlink_to(Run("demo", 0, "", talkative).checkpoint_path(0))
    make_sweep([[0.1, 0.3]], thresholds=(0.1, 0.7)).save(run.scores_path)
    other = replace(run, fold=1)
    other.checkpoint_path(0).parent.mkdir(parents=True)
    other.checkpoint_path(0).hardlink_to(Run("demo", 1, "", talkative).checkpoint_path(0))
    make_sweep([[0.1, 0.3]], thresholds=(0.1, 1.9)).save(other.scores_path)
    return run


@pytest.mark.parametrize(
    ("flags", "threshold", "source"),
    [
        ([], 0.7, "check_metric, epoch 0"),
        (["--postprocess", "paper"], 0.7, "check_metric, epoch 0"),
        (["--folds", "0"], 0.7, "check_metric, epoch 0"),
        (["--threshold", "0.2"], 0.2, "flag"),
        (["--postprocess", "second-place"], 0.3, "preset"),
        (["--gate", "score_category"], 0.3, "default"),
        (["--tta", "hflip", "--postprocess", "plain"], 0.7, "check_metric, mean of the networks"),
        (["--tta", "hflip"], 0.7, "check_metric, mean of the networks"),
        (["--tta", "hflip", "--postprocess", "second-place"], 0.3, "preset"),
        (["--tta", "hflip", "--gate", "score_category"], 0.3, "preset"),
        (
            ["--folds", "0", "1", "--run-weights", "3", "1"],
            1.0,
            "check_metric, mean of the networks",
        ),
    ],
)
def test_the_threshold_is_noted_with_its_origin(predict, scored, flags, threshold, source):
    run = ("--model", "demo", "--output-dir", scored.output_dir)
    (path,) = predict(*run, *flags).rglob("boxes_made_by.json")
    settings = settings_of(path.parent)
    assert (settings["threshold"], settings["threshold_from"]) == (threshold, source)


def test_scores_that_nobody_needs_are_not_read(predict, scored):
    scored.scores_path.write_text("no scores")
    run = ("--model", "demo", "--epoch", "0", "--output-dir", scored.output_dir)
    assert predict(*run, ok=False).code == 2
    predict(*run, "--threshold", "0.5")


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (["--model", "demo", "demo"], "demo_fold_0 epoch 0 is in the ensemble twice"),
        (["--model", "demo", "twinn"], "did you mean twin?"),
        (["--folds", "0", "1", "--run-weights", "1"], "1 weights for 2 runs, which are demo_"),
        (["--folds", "0", "1", "--run-weights", "1", "-1"], "-1 is less than 0"),
        (["--folds", "0", "1", "--run-weights", "0", "0"], "one of them must be greater than 0"),
        (["--folds", "0", "1", "--run-weights", "nan", "1"], "'nan' is not a finite number"),
        (["--k", "1.6"], "--k needs an ensemble"),
        (["--combine", "mean"], "--combine needs an ensemble"),
        (["--folds", "0", "1", "--combine", "mean", "--k", "1.6"], "--combine percentile uses k"),
        (["--folds", "0", "1", "--k", "inf"], "'inf' is not a finite number"),
        (["--postprocess", "best"], "invalid choice: 'best'"),
        (["--shrink", "1.5"], "1.5 is not above 0 and at most 1"),
        (["--threshold", "much"], "'much' is not a finite number"),
        (["--model", "demo", "twin", "--action", "train"], "--action train takes one --model"),
    ],
)
def test_what_cannot_be_combined_is_refused_in_one_line(predict, tmp_path, flags, cause):
    outcome = predict("--model", "demo", "--epoch", "0", *flags, ok=False)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 1
    assert cause in outcome.err
    assert not (tmp_path / "out").exists()


def test_check_metric_sweeps_the_thresholds_of_the_settings(trained, tmp_path, call_main):
    run = Run("demo", 0, "", tmp_path)
    run.predictions_path(0).parent.mkdir(parents=True)
    run.predictions_path(0).hardlink_to(trained.predictions_path(0))
    outcome = call_main(
        train_runner.main, "--action", "check_metric", "--model", "demo", "--output-dir", tmp_path,
        "--postprocess", "second-place", "--nms", "0.5", "--gate", "score_category",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    sweep = load_sweep(run.scores_path)
    assert (sweep.gates, sweep.shrinks, sweep.nms) == (("score_category",), (0.875,), (0.5,))
    assert sweep.thresholds == SCORE_THRESHOLDS


def test_test_model_draws_the_boxes_of_the_settings(call_main, talkative, phantoms, monkeypatch):
    drawn = []

    def record(picture, predictions, chosen, image):
        drawn.append(chosen.of_image(image)[0])
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr("src.actions.test_model.draw_predictions", record)
    sides = []
    for preset in ("plain", "second-place"):
        drawn.clear()
        outcome = call_main(
            train_runner.main, "--action", "test_model", "--model", "demo", "--epoch", "0",
            "--num-images", "2", "--postprocess", preset, "--data-dir", phantoms,
            "--output-dir", talkative, "--num-workers", "0",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        boxes = np.concatenate(drawn)
        sides.append(boxes[:, 2:] - boxes[:, :2])
    assert len(sides[0]) > 2
    np.testing.assert_allclose(sides[1], 0.875 * sides[0])
