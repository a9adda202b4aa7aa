import csv
from dataclasses import replace

import numpy as np
import pytest

from src.scores import main
from src.scoring.grid import sweep_pooled
from src.scoring.sweep import load_sweep
from tests.made_predictions import (
    make_predictions,
    random_predictions,
    save_epoch,
    save_folds,
    save_run,
    with_weak_boxes,
)


def best_of(path):
    best = load_sweep(path).best()
    assert best is not None
    return best


def test_the_command_scores_runs_by_relative_path(tmp_path, call_main, monkeypatch):
    save_run(tmp_path / "with space", 0, 1)
    monkeypatch.chdir(tmp_path / "with space")
    outcome = call_main(main, "demo_fold_0", "--nms", "0.05", "0.5", "--epochs", "1")
    sweep_path = tmp_path / "with space" / "demo_fold_0" / "sweep.npz"
    sweep = load_sweep(sweep_path)
    assert sweep.epochs == (1,)
    assert sweep.nms == (0.05, 0.5)
    assert f"best score {best_of(sweep_path).score:.4f} " in outcome.out
    assert "at --epoch 1 --gate " in outcome.out
    assert sweep_path.with_suffix(".csv").exists()
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--nms", "much"], "'much' is not a finite number"),
        (["--nms", "5"], "5 is not between 0 and 1"),
        (["--thresholds", "nan"], "'nan' is not a finite number"),
        (["--shrinks", "-1"], "-1 is not above 0"),
        (["--gates", "other"], "--gates"),
        (["--epochs", "7"], "7"),
        (["--unknown"], "--unknown"),
        (["--truth-classes", "c.csv"], "--truth-classes needs --truth"),
        (["--truth", "t.csv", "--gates", "score"], "--truth cannot be combined with --gates"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(tmp_path, call_main, listing, flags, words):
    run_dir = save_run(tmp_path, 0)
    before = listing(tmp_path)
    outcome = call_main(main, run_dir, *flags)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert listing(tmp_path) == before


def test_values_that_are_named_twice_or_in_disorder_count_once_in_order(tmp_path, call_main):
    run_dir = tmp_path / "run"
    for epoch in (0, 1):
        save_epoch(run_dir, random_predictions(epoch=epoch))
    flags = ("--epochs", "1", "0", "1", "--thresholds", "0.5", "0.1", "0.5", "--nms", "0.1", "0.1",
             "--gates", "score", "score", "--shrinks", "1", "1")  # fmt: skip
    outcome = call_main(main, run_dir, *flags)
    assert outcome.code == 0, outcome.err
    sweep = load_sweep(run_dir / "sweep.npz")
    assert sweep.axes() == [(0, 1), ("score",), (1.0,), (0.1,), (0.1, 0.5)]


def test_the_command_pools_exactly_when_all_folds_are_there(tmp_path, call_main):
    run_dirs = save_folds(tmp_path)
    quick = ["--nms", "0.05", "--shrinks", "1", "--gates", "score"]
    assert call_main(main, *run_dirs[:3], *quick).code == 0
    assert not (tmp_path / "demo_all_folds").exists()

    outcome = call_main(main, *run_dirs, *quick)
    assert outcome.code == 0, outcome.err
    assert "demo_all_folds: best score" in outcome.out
    pooled = best_of(tmp_path / "demo_all_folds" / "sweep.npz")
    expected = sweep_pooled(run_dirs).best()
    assert expected is not None
    assert pooled.score == expected.score


def test_folds_of_two_folders_are_no_pool(tmp_path, call_main):
    """They would be of two trainings: nothing says which of two folds 0 belongs to the others."""
    run_dirs = [*save_folds(tmp_path / "a"), save_folds(tmp_path / "b")[0]]
    quick = ["--nms", "0.05", "--shrinks", "1", "--gates", "score"]
    outcome = call_main(main, *run_dirs, *quick)
    assert "demo: a fold is given twice" in outcome.out
    assert not list(tmp_path.rglob("demo_all_folds"))


def test_a_place_that_cannot_be_written_is_refused_first(tmp_path, call_main, monkeypatch):
    monkeypatch.setattr("src.scores.sweep_run", None)  # it would be called first
    run_dirs = save_folds(tmp_path)
    (run_dirs[1] / "sweep.npz").mkdir()
    outcome = call_main(main, *run_dirs)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"{run_dirs[1]}/sweep.npz: cannot be written: a folder is in its place" in outcome.err


def test_the_command_pools_as_many_folds_as_there_are(tmp_path, call_main):
    run_dirs = save_folds(tmp_path, range(5), epochs=(0,))
    quick = ["--nms", "0.05", "--shrinks", "1", "--gates", "score"]
    outcome = call_main(main, *run_dirs, *quick)
    assert "demo: 5 folds; --n-folds 5 scores them together" in outcome.out
    assert not (tmp_path / "demo_all_folds").exists()

    outcome = call_main(main, *run_dirs, *quick, "--n-folds", "5")
    assert "demo_all_folds: best score" in outcome.out


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (([[0, 0, 50, 50]], [([60, 60, 90, 90], 0.9)]), "no setting scores above 0"),
        (([], []), "no image has true boxes"),
    ],
    ids=["nothing hits", "nothing counts"],
)
def test_the_command_says_that_no_setting_is_the_best(tmp_path, call_main, images, words):
    save_epoch(tmp_path / "run", make_predictions(images))
    outcome = call_main(main, tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert words in outcome.out
    assert load_sweep(tmp_path / "run" / "sweep.npz").best() is None


def test_the_command_quotes_numbers_of_runs_and_groups(tmp_path, call_main):
    run_dir = tmp_path / "demo_fold_0"
    predictions = with_weak_boxes(random_predictions(n_images=40))
    groups = np.array([f"P{i // 2}" for i in range(40)])
    save_epoch(run_dir, replace(predictions, group_ids=groups))
    table = tmp_path / "groups.csv"
    rows = (f"{name},{'AP' if i % 2 else 'PA'}\n" for i, name in enumerate(predictions.ids))
    table.write_text("patientId,view\n" + "".join(rows))
    outcome = call_main(main, run_dir, "--gates", "score", "--groups", table)
    assert (outcome.code, outcome.err) == (0, "")
    assert "images with an opacity, 20 patients" in outcome.out
    assert "numbers of epoch 0" in outcome.out and "view AP: 20 images" in outcome.out
    assert str(run_dir / "groups.csv") in outcome.out
    with (run_dir / "numbers.csv").open(newline="") as file:
        numbers = {(row["name"], row["image_score"]): row for row in csv.DictReader(file)}
    assert {"ap_50", "froc", "auroc"} < {name for name, _ in numbers}
    row = numbers["ap_50", ""]
    assert 0 < float(row["low"]) <= float(row["value"]) <= float(row["high"]) <= 1
    assert f"{float(row['value']):.4f}" in outcome.out
    assert outcome.out.index("best score") < outcome.out.index("honest score")


def test_runs_that_were_saved_without_weaker_boxes_say_so(tmp_path, call_main):
    outcome = call_main(main, save_run(tmp_path, 0), "--numbers", "--gates", "score")
    assert outcome.code == 0, outcome.err
    assert "no average precision" in outcome.out and "--overwrite" in outcome.out
    lines = {line.split()[0]: line for line in outcome.out.splitlines() if line.split()}
    assert lines["ap_50"].split()[1] == "-"
    assert lines["auroc"].split()[3] != "-"


def test_the_command_quotes_numbers_of_submissions(tmp_path, call_main):
    truth, submission = tmp_path / "truth.csv", tmp_path / "submission.csv"
    truth.write_text(
        "patientId,x,y,width,height,Target,groupId\n"
        "a,10,10,100,100,1,P1\nb,,,,,0,P1\nc,10,10,50,50,1,\n"
    )
    submission.write_text(
        "patientId,PredictionString\na,0.9 10 10 100 100\nb,0.2 5 5 10 10\nc,0.1 300 300 50 50\n"
    )
    outcome = call_main(main, submission, "--truth", truth, "--numbers")
    assert (outcome.code, outcome.err) == (0, "")
    assert "3 images, 2 images with an opacity, 2 patients" in outcome.out
    lines = {line.split()[0]: line.split() for line in outcome.out.splitlines() if line.split()}
    assert lines["ap_50"][1] == "0.5050"  # one of two, at 51 of 101 levels of recall
    assert lines["auroc"][3] == "0.5000"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("view\nAP\n", "has no column patientId"),
        ("patientId\na\n", "needs a column beside patientId"),
        ("patientId,view\na,AP\na,PA\n", "line 3: patient a again"),
        ("patientId,n\n" + "".join(f"p{i},{i}\n" for i in range(51)), "column n has 51 values"),
    ],
)
def test_a_table_that_makes_no_groups_is_refused_before_the_work(
    tmp_path, call_main, listing, content, words
):
    run_dir, table = save_run(tmp_path, 0), tmp_path / "groups.csv"
    table.write_text(content)
    before = listing(tmp_path)
    outcome = call_main(main, run_dir, "--groups", table)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"{table}: " in outcome.err and words in outcome.err
    assert listing(tmp_path) == before
