"""Predictions of an ensemble are told by its networks, and how these were combined."""

import json
import os
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest

from src import scores, submission, train_runner
from src.actions.ensemble_flags import describe_ensemble, flags_of_ensemble
from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.prediction.predictions import load_predictions, load_provenance
from src.prediction.provenance import Combination, NetworkId
from src.scoring.sweep import load_sweep
from tests.made_predictions import make_fold, offsets_of, random_predictions, save_epoch

PREDICT = ("--action", "generate_predictions", "--num-workers", "0")
QUICKLY = ("--gates", "score", "--shrinks", "1", "--nms", "0.05")


def network(model="demo", fold=0, epoch=0, weight=1.0, tag=""):
    return NetworkId(model=model, tag=tag, fold=fold, epoch=epoch, weight=weight)


def combination(*members, hflip=False, size_rule="mean", k=None):
    return Combination(members=members, hflip=hflip, size_rule=size_rule, k=k)


TWO_EPOCHS = combination(network(epoch=0, weight=0.5), network(epoch=1, weight=0.5))
FOLDS = tuple(network(m, f, 1, 0.25) for m in ("demo", "twin") for f in (0, 1))


@pytest.mark.parametrize(
    ("ensemble", "flags"),
    [
        (TWO_EPOCHS, "--model demo --folds 0 --epochs 0 1 --combine mean"),
        (
            combination(network(epoch=3, tag="late"), hflip=True, size_rule="percentile", k=1.6),
            "--model demo --run late --folds 0 --epochs 3 --tta hflip --combine percentile --k 1.6",
        ),
        (combination(*FOLDS), "--model demo twin --folds 0 1 --epochs 1 --combine mean"),
        (
            combination(*FOLDS[:3], network("twin", 1, 1, 0.0)),
            "--model demo twin --folds 0 1 --epochs 1 --run-weights 0.25 0.25 0.25 0"
            " --combine mean",
        ),
        (
            combination(network(weight=0.75), network("twin", 1, weight=0.25)),
            "--model demo twin --folds 0 1 --epochs 0 --run-weights 0.75 0 0 0.25 --combine mean",
        ),
        (combination(network(epoch=0), network("twin", epoch=1)), None),
        (combination(network(weight=0.75), network(epoch=1, weight=0.25)), None),
        (combination(network(), network("twin", tag="late")), None),
    ],
)  # fmt: skip
def test_flags_name_every_network_or_none_do(ensemble, flags):
    assert flags_of_ensemble(ensemble) == flags


def test_the_networks_of_a_pool_are_those_of_any_fold():
    shared = TWO_EPOCHS.without_folds()
    assert describe_ensemble(shared) == "demo epochs 0, 1"
    assert flags_of_ensemble(shared) == "--model demo --folds K --epochs 0 1 --combine mean"


def test_an_ensemble_is_described_by_its_runs():
    mirrored = combination(*FOLDS, network("demo", 0, 2), hflip=True)
    assert describe_ensemble(mirrored) == (
        "demo fold 0 epochs 1, 2; demo fold 1 epoch 1; twin fold 0 epoch 1; twin fold 1 epoch 1, "
        "each with mirrored images as well"
    )
    assert describe_ensemble(combination(network(tag="late"))) == "demo_late fold 0 epoch 0"


@pytest.fixture
def output_dir(talkative, tmp_path, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "twin", EXPERIMENTS["demo"])
    shutil.copytree(talkative, tmp_path / "runs", copy_function=os.link)
    return tmp_path / "runs"


@pytest.fixture
def predict(call_main, phantoms, output_dir):
    """Return a function that predicts validation images and gives back what came of it."""

    def run(*flags, ok=True):
        folders = ("--data-dir", phantoms, "--output-dir", output_dir)
        outcome = call_main(train_runner.main, *PREDICT, *folders, *flags)
        assert not ok or outcome.code == 0, outcome.err
        return outcome

    return run


@pytest.mark.parametrize(
    "members",
    [
        ("--model", "demo", "--folds", "0", "--epochs", "0", "1"),
        ("--model", "demo", "--folds", "0", "--epochs", "1", "--tta", "hflip", "--k", "1.25"),
        ("--model", "demo", "twin", "--folds", "0", "--epochs", "0", "1", "--combine", "mean",
         "--run-weights", "3", "1"),
        ("--model", "demo", "twin", "--folds", "0", "--epochs", "0", "--postprocess", "paper",
         "--run-weights", "0.1", "0.2"),
    ],
)  # fmt: skip
def test_the_flags_that_scores_prints_make_the_same_ensemble_again(
    predict, call_main, output_dir, members
):
    predict(*members)
    (folder,) = output_dir.glob("*_ensemble_fold_0")
    (path,) = (folder / "predictions").iterdir()
    made_by, before = load_provenance(path), let_it_hit(path)
    assert made_by.ensemble is not None

    outcome = call_main(scores.main, folder, *QUICKLY)
    assert outcome.code == 0, outcome.err
    first, *lines = outcome.out.splitlines()
    assert first == f"{folder.name}: an ensemble of {describe_ensemble(made_by.ensemble)}"
    sweep = load_sweep(folder / "sweep.npz")
    assert sweep.run.ensemble == made_by.ensemble.rounded()

    (flags,) = (line.removeprefix("  at ") for line in lines if line.startswith("  at "))
    assert "--epoch " not in flags
    shutil.rmtree(folder)
    predict(*shlex.split(flags))
    assert load_provenance(path).is_same(made_by)
    np.testing.assert_allclose(load_predictions(path).scores, before.scores, atol=1e-6)
    (description,) = folder.glob("submission_valid_*_made_by.json")
    settings = json.loads(description.read_text())["postprocess"]
    assert f"--threshold {settings['threshold']}" in flags


def test_a_second_ensemble_never_lands_beside_the_first(predict, output_dir, listing):
    predict("--model", "demo", "--folds", "0", "--epochs", "0", "--tta", "hflip")
    folder = Run("demo", 0, "ensemble", output_dir).dir
    before = listing(folder)
    for other in (
        ("--epochs", "1", "--tta", "hflip"),
        ("--epochs", "0", "1"),
        ("--epochs", "0", "--tta", "hflip", "--k", "1.5"),
        ("--epochs", "0", "--tta", "hflip", "--combine", "mean"),
    ):
        outcome = predict("--model", "demo", "--folds", "0", *other, ok=False)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert f"{folder}/predictions/000.npz: is of another ensemble; --overwrite" in outcome.err
        assert listing(folder) == before
    predict("--model", "demo", "--folds", "0", "--epochs", "0", "--tta", "hflip")  # its own


def test_an_ensemble_that_replaces_another_leaves_nothing_of_it(predict, call_main, output_dir):
    flags = ("--model", "demo", "--folds", "0", "--tta", "hflip", "--epochs")
    predict(*flags, "0")
    run = Run("demo", 0, "ensemble", output_dir)
    assert call_main(scores.main, run.dir, *QUICKLY).code == 0
    check = ("--action", "check_metric", "--model", "demo", "--run", "ensemble")
    assert call_main(train_runner.main, *check, "--output-dir", output_dir).code == 0
    predict(*flags, "1", "--overwrite")
    left = {path.relative_to(run.dir).as_posix() for path in run.dir.rglob("*") if path.is_file()}
    assert left == {
        "experiment.json", "predictions/001.npz", "submission_valid_001.csv",
        "submission_valid_001_made_by.json", "pics/scores.png", "pics/scores.pdf",
    }  # fmt: skip


def test_two_ensembles_in_one_folder_are_no_epochs_of_one(tmp_path, call_main):
    """An older version let them lie there."""
    for epoch in (0, 1):
        ensemble = replace(TWO_EPOCHS, members=(network(epoch=epoch),), hflip=True)
        save_epoch(tmp_path / "a", make_fold(0, epoch, tag="ensemble", ensemble=ensemble))
    outcome = call_main(scores.main, tmp_path / "a", *QUICKLY)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "epoch 1 is of another ensemble than epoch 0; score them one by one" in outcome.err
    assert not (tmp_path / "a" / "sweep.npz").exists()
    assert call_main(scores.main, tmp_path / "a", "--epochs", "1", *QUICKLY).code == 0


def test_ensembles_of_all_folds_are_pooled_only_where_they_are_the_same(tmp_path, call_main):
    def save_all(epochs_of_the_last):
        for fold in range(4):
            epochs = epochs_of_the_last if fold == 3 else (0, 1)
            ensemble = combination(*(network(fold=fold, epoch=e, weight=0.5) for e in epochs))
            save_epoch(
                tmp_path / f"fold_{fold}",
                make_fold(fold, 1, tag="ensemble", ensemble=ensemble),
            )

    folders = [tmp_path / f"fold_{fold}" for fold in range(4)]
    save_all((0, 2))
    assert call_main(scores.main, *folders, *QUICKLY).code == 0
    assert not (tmp_path / "demo_ensemble_all_folds").exists()
    save_all((0, 1))
    outcome = call_main(scores.main, *folders, *QUICKLY)
    assert outcome.code == 0, outcome.err
    assert "demo_ensemble_all_folds: an ensemble of demo epochs 0, 1\n" in outcome.out
    assert "--model demo --folds K --epochs 0 1 --combine mean --gate score" in outcome.out


def test_an_ensemble_that_no_flags_name_is_told_by_its_members(tmp_path, call_main):
    ensemble = combination(network(epoch=0, weight=0.5), network("twin", epoch=1, weight=0.5))
    made = random_predictions(1)
    made_by = replace(made.provenance, model="demo+twin", tag="ensemble", ensemble=ensemble)
    save_epoch(tmp_path / "a", replace(made, provenance=made_by))
    outcome = call_main(scores.main, tmp_path / "a", *QUICKLY)
    assert "a: an ensemble of demo fold 0 epoch 0; twin fold 0 epoch 1\n" in outcome.out
    assert re.search("  at --gate score .*\n.*no flags name these members", outcome.out)
    assert "--epoch" not in outcome.out.replace("--epochs", "")


@pytest.mark.parametrize(
    ("preset", "size_rule", "k", "words"),
    [
        ("paper", "percentile", 0.9, "percentiles with k 0.9 when it predicted, and --postprocess "
         "paper takes percentiles with k 1.6: take --postprocess second-place, or predict again "
         "with generate_predictions --postprocess paper"),
        ("plain", "percentile", 1.6, "percentiles with k 1.6 when .* plain takes means: take "
         "--postprocess paper"),
        ("second-place", "mean", None, "means when .* takes percentiles with k 0.9: take "
         "--postprocess plain"),
        ("paper", "percentile", 1.2, "k 1.2 when .*: leave --postprocess out, or predict again"),
    ],
)  # fmt: skip
def test_how_sizes_were_combined_is_not_chosen_again(
    tmp_path, call_main, preset, size_rule, k, words
):
    ensemble = replace(TWO_EPOCHS, size_rule=size_rule, k=k)
    path, out = save_ensemble(tmp_path, ensemble), tmp_path / "s.csv"
    outcome = call_main(
        submission.main, "write", path, "--out", out, "--postprocess", preset, "--threshold", "0.3"
    )
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert re.search(words, outcome.err)
    assert not out.exists()


@pytest.mark.parametrize(
    ("preset", "size_rule", "k"),
    [("paper", "percentile", 1.6), ("second-place", "percentile", 0.9), ("plain", "mean", None)],
)
def test_a_preset_that_agrees_with_the_ensemble_is_taken(tmp_path, call_main, preset, size_rule, k):
    path = save_ensemble(tmp_path, replace(TWO_EPOCHS, size_rule=size_rule, k=k))
    arguments = ("write", path, "--out", tmp_path / "s.csv", "--threshold", "0.3")
    outcome = call_main(submission.main, *arguments, "--postprocess", preset)
    assert outcome.code == 0, outcome.err
    written = json.loads((tmp_path / "s_made_by.json").read_text())["postprocess"]
    assert (written["preset"], written["size_rule"], written["k"]) == (preset, size_rule, k)


@pytest.mark.parametrize("flag", ["--combine", "--k"])
def test_a_submission_of_saved_predictions_has_no_flags_of_sizes(tmp_path, call_main, flag):
    path = save_ensemble(tmp_path, TWO_EPOCHS)
    outcome = call_main(submission.main, "write", path, "--out", tmp_path / "s.csv", flag, "1")
    assert outcome.code == 2
    assert "unrecognized arguments" in outcome.err


def let_it_hit(path):
    """Make the best box of every image a true one, so that some setting is the best."""
    found = load_predictions(path)
    first = found.offsets[:-1][np.diff(found.offsets) > 0]
    counts = (np.diff(found.offsets) > 0).astype(int)
    hit = replace(found, true_boxes_xyxy=found.boxes_xyxy[first], true_offsets=offsets_of(counts))
    hit.save(path)
    return hit


def save_ensemble(folder, ensemble):
    made = random_predictions()
    made_by = replace(made.provenance, tag="ensemble", ensemble=ensemble)
    replace(made, provenance=made_by).save(folder / "p.npz")
    return folder / "p.npz"
