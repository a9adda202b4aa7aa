"""Odd but well-typed content of scores.npz is refused in one line by all that read it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from src import export, train_runner
from src.experiments.runs import Run
from src.prediction.provenance import Combination, NetworkId
from src.scoring.sweep import ScoredRun, ScoresError, load_sweep
from src.visualizations import (
    plot_detections,
    plot_global_head,
    plot_metrics,
    plot_numbers,
    plot_sweep,
    report,
)
from tests.made_predictions import make_sweep, random_predictions, save_epoch

SOUND = {
    "epoch": np.arange(2),
    "gate": np.array(["score", "score_category"]),
    "shrink": np.array([1.0, 0.9]),
    "nms": np.array([0.05, 0.1]),
    "threshold": np.array([0.1, 0.3]),
    "scores": np.full((2,) * 5, 0.25),
    "header": np.array('{"model": "demo", "fold": 0, "tag": ""}'),
}
ODD = {
    "an unknown gate": ({"gate": np.array(["score", "sum"])}, "gate holds 'sum', not one of score"),
    "a gate twice": ({"gate": np.array(["score", "score"])}, "gate holds 'score' twice"),
    "numbers for gates": ({"gate": np.arange(2)}, "gate is int64"),
    "text for thresholds": ({"threshold": np.array(["0.1", "0.3"])}, "threshold is <U3"),
    "two dimensions": ({"threshold": np.zeros((2, 2))}, "threshold is float64 with 2 dimensions"),
    "a threshold twice": ({"threshold": np.array([0.1, 0.1])}, "threshold holds 0.1 twice"),
    "an infinite threshold": ({"threshold": np.array([0.1, np.inf])}, "threshold holds a number"),
    "an epoch twice": ({"epoch": np.array([1, 1])}, "epoch holds 1 twice"),
    "an epoch below 0": ({"epoch": np.array([-1, 1])}, "epoch holds -1"),
    "a shrink of 7": ({"shrink": np.array([1.0, 7.0])}, "shrink holds 7.0"),
    "an NMS of -1": ({"nms": np.array([-1.0, 0.1])}, "nms holds -1.0"),
    "infinite scores": ({"scores": np.full((2,) * 5, np.inf)}, "scores holds a number that is not"),
    "scores over 1": ({"scores": np.full((2,) * 5, 4.0)}, "scores holds 4.0, which is not between"),
    "scores below 0": ({"scores": np.full((2,) * 5, -0.1)}, "scores holds -0.1"),
    "too few scores": ({"scores": np.zeros((2, 2, 2, 2, 1))}, "scores has shape (2, 2, 2, 2, 1)"),
    "flat scores": ({"scores": np.zeros(32)}, "scores is float64 with 1 dimensions"),
    "no epochs": ({"epoch": np.arange(0), "scores": np.zeros((0, 2, 2, 2, 2))}, "holds no scores"),
    "a tag that leaves": ({"header": np.array('{"tag": "/../../x"}')}, "tag cannot be"),
    "a model in a list": ({"header": np.array('{"model": ["a"]}')}, "model cannot be ['a']"),
    "a fold of 10^400": ({"header": np.array(f'{{"fold": 1{"0" * 400}}}')}, "fold cannot be 1000"),
    "headers": ({"header": np.array(["{}", "{}"])}, "header is <U2 with 1 dimensions"),
}


@pytest.fixture
def run(trained, tmp_path):
    """Return a run with predictions and weights; its scores are yet to be written."""
    made = Run("demo", 0, "", tmp_path / "runs")
    made.checkpoint_path(1).parent.mkdir(parents=True)
    shutil.copy2(trained.experiment_path, made.experiment_path)
    made.checkpoint_path(1).hardlink_to(trained.checkpoint_path(1))
    save_epoch(made.dir, random_predictions(epoch=1))
    return made


def commands_on(run, phantoms, out):
    folders = ("--model", "demo", "--data-dir", phantoms, "--output-dir", run.output_dir)
    return [
        (report.main, (run.dir, "--data-dir", phantoms)),
        (plot_detections.main, (run.dir, "--out", out / "d.png")),
        (plot_global_head.main, (run.dir, "--out", out / "g.png")),
        (plot_numbers.main, (run.dir, "--out", out / "n.png")),
        (plot_metrics.main, (run.dir, "--out", out / "m.png")),
        (plot_sweep.main, (run.dir, "--out", out / "s.png")),
        (export.main, (run.dir, "--out", out / "m.onnx")),
        (train_runner.main, ("--action", "generate_predictions", *folders)),
        (train_runner.main, ("--action", "test_model", *folders)),
    ]


@pytest.mark.parametrize(("arrays", "words"), ODD.values(), ids=ODD)
def test_odd_scores_are_refused_in_one_line_by_every_command(
    run, phantoms, tmp_path, call_main, monkeypatch, arrays, words
):
    monkeypatch.setattr(export, "_check_packages", lambda: None)
    for path in (run.scores_path, run.dir / "sweep.npz"):
        np.savez(path, allow_pickle=False, **(SOUND | arrays))
    for main, arguments in commands_on(run, phantoms, tmp_path / "out"):
        outcome = call_main(main, *arguments)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert f"{run.dir}/s" in outcome.err
        assert f".npz: not a scores file: {words}" in outcome.err
        assert len(outcome.err) < len(str(run.dir)) + 400
    assert not (tmp_path / "out").exists()


def test_sound_scores_are_read(tmp_path):
    np.savez(tmp_path / "scores.npz", allow_pickle=False, **SOUND)
    sweep = load_sweep(tmp_path / "scores.npz")
    assert sweep.axes() == [
        (0, 1),
        ("score", "score_category"),
        (1.0, 0.9),
        (0.05, 0.1),
        (0.1, 0.3),
    ]
    best = sweep.best()
    assert best is not None
    assert best.score == 0.25


def test_scores_of_an_ensemble_come_back_with_its_networks(tmp_path):
    members = tuple(NetworkId(model="demo", tag="", fold=0, epoch=i, weight=0.5) for i in (0, 1))
    ensemble = Combination(members=members, hflip=True, size_rule="percentile", k=0.9)
    run = ScoredRun(model="demo", tag="ensemble", fold=0, ensemble=ensemble)
    replace(make_sweep([[0.1, 0.2, 0.3]]), run=run).save(tmp_path / "scores.npz")
    assert load_sweep(tmp_path / "scores.npz").run == run


def test_scores_of_an_ensemble_are_told_by_its_weights_up_to_rounding():
    made_by = random_predictions().provenance
    one, other = (
        ScoredRun.of(replace(made_by, ensemble=Combination(
            members=(NetworkId(weight=weight), NetworkId(weight=1 - weight)), hflip=False)))
        for weight in (1 / 3, 1 / 3 + 1e-15)
    )  # fmt: skip
    assert one == other
    assert one != ScoredRun.of(made_by)


def test_an_axis_of_whole_numbers_is_saved_as_fractions(tmp_path):
    sweep = make_sweep([[0.1, 0.2]], thresholds=(1, 2))
    sweep.save(tmp_path / "scores.npz")
    assert load_sweep(tmp_path / "scores.npz").thresholds == (1.0, 2.0)


def test_an_epoch_that_was_not_scored_is_told_among_any_number_of_others():
    sweep = make_sweep(np.full((5000, 2), 0.5))
    with pytest.raises(ScoresError, match=r"epoch 9999 was not scored, only \[0, 1, ") as caught:
        sweep.best(9999)
    assert len(str(caught.value)) < 200


def test_a_header_is_plain_json(tmp_path):
    make_sweep([[0.1]]).save(tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as saved:
        assert json.loads(str(saved["header"])) == {"model": "demo", "fold": None, "tag": None}
