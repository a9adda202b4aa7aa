"""The paper by one command: what its plans train, what follows when, and a small part of it."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest

from scripts.experiment_queue.jobs import make_jobs
from scripts.experiment_queue.plan import read_plan
from src.experiments.changes import read_changes
from src.experiments.experiment import Experiment
from src.experiments.runs import Run
from src.experiments.table import get_experiment
from tests.conftest import HANGS_AFTER
from tests.paths import ROOT

SCRIPT = ROOT / "scripts" / "reproduce_paper.sh"
TEXT = SCRIPT.read_text()
PLANS = {path.stem: path for path in (ROOT / "scripts" / "paper").glob("*.toml")}
BEST = re.search(r"^best=(.*)$", TEXT, re.MULTILINE)[1]  # type: ignore[index]


def experiments_of(name, tmp_path) -> dict[Run, Experiment]:
    jobs = make_jobs(read_plan(PLANS[name]), data_dir=tmp_path, output_dir=tmp_path)
    return {job.run: job.experiment for job in jobs}


def test_the_plans_compare_encoders_augmentation_dropout_and_pretraining(tmp_path):
    encoders = experiments_of("encoders", tmp_path).values()
    assert {each.encoder for each in encoders} == {
        *("se_resnext101", "inceptionresnetv2", "nasnet_mobile", "xception", "resnet101"),
        "pnasnet5large",
    }
    augmented = experiments_of("augmentation", tmp_path).values()
    assert {each.augmentation_level for each in augmented} == {1, 10, 20, 21}
    assert {each.box_points for each in augmented} == {"thirds", "corners"}
    dropped = experiments_of("dropout", tmp_path).values()
    assert {each.dropout_class for each in dropped} == {0.0, 0.5, 0.75}
    pretrained = experiments_of("pretraining", tmp_path).values()
    assert {each.pretrained for each in pretrained} == {True, False}
    assert all(each.img_size == 512 for each in (*encoders, *augmented, *dropped, *pretrained))


def test_the_best_network_is_trained_on_all_folds(tmp_path):
    runs = experiments_of("folds", tmp_path)
    assert [(run.model, run.fold) for run in runs] == [(BEST, fold) for fold in range(4)]
    last = get_experiment(BEST).n_epochs - 1
    epochs = re.search(r"^best=.*\nepochs=\(([0-9 ]+)\)", TEXT, re.MULTILINE)
    assert epochs is not None
    assert all(int(epoch) <= last for epoch in epochs[1].split())


def test_what_several_plans_need_is_trained_once(tmp_path):
    grids = [grid for path in PLANS.values() for grid in read_plan(path)]
    assert len(make_jobs(grids, data_dir=tmp_path, output_dir=tmp_path)) == 17


def test_the_stand_ins_of_a_rehearsal_are_small(tmp_path):
    text = re.search(r"changes=\(--set (.*?)\)", TEXT, re.DOTALL)[1]  # type: ignore[index]
    changes = read_changes(shlex.split(text))
    for path in PLANS.values():
        for grid in read_plan(path):
            for model in grid.model:
                small = replace(get_experiment(model), **changes)
                assert (small.img_size, small.pretrained, small.n_epochs) == (192, False, 5)


# In place of Python: notes what it is called with, and names two runs.
FAKE_PYTHON = """#!/usr/bin/env bash
echo "${*//"$ROOT"\\//}" >>"$NOTES"
if [[ $* == *--list-runs* ]]; then printf '%s\\n' "a run/one" "a run/two"; fi
if [[ $* == *--dry-run* ]]; then echo "# 17 trainings"; echo "a command"; fi
if [[ $1 == -c ]]; then exit; fi
"""


@pytest.fixture
def rehearse(tmp_path):
    """Return a function that calls the script without Python, and reads what it would run."""
    python, notes = tmp_path / "fake python", tmp_path / "notes"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    (tmp_path / "data").mkdir()

    def call(*words):
        notes.write_text("")
        environment = os.environ | {
            "PYTHON": str(python), "NOTES": str(notes), "ROOT": str(ROOT),
            "PNEUMONIA_DATA_DIR": str(tmp_path / "data"),
            "PNEUMONIA_OUTPUT_DIR": str(tmp_path / "output"),
        }  # fmt: skip
        result = subprocess.run(
            ["bash", SCRIPT, *words], env=environment, cwd="/", capture_output=True, text=True
        )
        calls = [line for line in notes.read_text().splitlines() if not line.startswith("-")]
        return result, calls

    return call


def test_an_estimate_comes_first(rehearse):
    (_, calls), (result, estimate) = rehearse(), rehearse("--estimate")
    assert calls[0] == estimate[0]
    assert "--dry-run --jobs 1 --epoch-minutes 50" in calls[0]
    assert len(estimate) == 1 and result.returncode == 0
    assert "# 17 trainings" in result.stdout and "a command" not in result.stdout


def test_the_data_is_looked_at_before_anything_is_trained(rehearse):
    _, calls = rehearse("--jobs", "2", "--", "--cache")
    assert "--action check_data" in calls[1]
    assert calls[2].startswith("scripts/run_experiments.py --plan scripts/paper/")
    assert calls[2].endswith(".toml --jobs 2 -- --cache")
    assert all(f"{name}.toml" in calls[2] for name in PLANS)


def test_figures_scores_ensembles_and_submission_follow(rehearse, tmp_path):
    result, calls = rehearse()
    assert result.returncode == 0, result.stderr
    after = calls[3:]
    drawn = {re.search(r"plot_\w+|report|eda|runs_index", call)[0] for call in after  # type: ignore[index]
             if "visualizations" in call}  # fmt: skip
    assert drawn == {
        *("plot_val_loss", "plot_metrics", "plot_sweep", "plot_detections", "plot_global_head"),
        *("plot_numbers", "report", "eda", "runs_index"),
    }
    assert len([call for call in after if "compare.py" in call]) == len(PLANS) - 1
    assert "src/scores.py a run/one a run/two --numbers" in after
    for preset in ("plain", "paper", "second-place"):
        (predict,) = (call for call in after if f"--postprocess {preset} " in call)
        assert f"--model {BEST} --action generate_predictions --folds 0 1 2 3" in predict
        assert f"--epochs 9 10 11 12 --split test --postprocess {preset}" in predict
        submission = tmp_path / "output" / "paper" / f"ensemble_{preset}" / "submission.csv"
        assert any(f"submission.py check {submission} --sample" in call for call in after)


def test_the_leaderboard_comes_where_the_truth_is_at_hand(rehearse, tmp_path):
    _, without = rehearse()
    (tmp_path / "data" / "stage_2_test_labels.csv").touch()
    _, calls = rehearse()
    (board,) = set(calls) - set(without)
    assert board.startswith("src/scores.py ") and board.count("submission.csv") == 3
    assert board.endswith("--truth " + str(tmp_path / "data" / "stage_2_test_labels.csv"))


def test_one_plan_alone_is_trained_and_drawn(rehearse):
    result, calls = rehearse("--only", "encoders")
    assert result.returncode == 0
    assert {word for call in calls for word in call.split() if word.endswith(".toml")} == {
        "scripts/paper/encoders.toml"
    }
    assert not any("generate_predictions" in call for call in calls)
    assert calls[-1].startswith("src/visualizations/runs_index.py a run/one a run/two --out ")


@pytest.mark.parametrize("words", [("--only", "encoder"), ("--only",)])
def test_a_plan_that_is_not_there_is_refused(rehearse, words):
    result, calls = rehearse(*words)
    assert (result.returncode, calls) == (2, [])
    assert result.stderr.endswith(f"no such plan; one of {' '.join(sorted(PLANS))}\n")


# Python, with fewer images and epochs than the rehearsal's.
QUICKER = """#!/usr/bin/env bash
words=("${{@/#n_epochs=5/n_epochs=1}}")
exec "{python}" "${{words[@]/#128/16}}"
"""


def test_a_part_of_the_rehearsal_runs(tmp_path):
    python = tmp_path / "quicker python"
    python.write_text(QUICKER.format(python=sys.executable))
    python.chmod(0o755)
    place = tmp_path / "a rehearsal"
    result = subprocess.run(
        ["bash", SCRIPT, "--rehearse", place, "--only", "pretraining"],
        env=os.environ | {"PYTHON": str(python), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=HANGS_AFTER,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 of 2 trainings are done" in result.stdout
    paper = place / "output" / "paper"
    made = {path.name for path in paper.iterdir()}
    assert {"pretraining_val_loss.png", "pretraining_metrics.png", "check_data.csv"} <= made
    assert (paper / "pretraining_compared" / "comparison.csv").is_file()
    assert (paper / "index" / "index.html").is_file()
