"""The command that trains many experiments, with real trainings of one epoch."""

import os
import re
import shlex
import signal
import subprocess
import time

import pytest

from scripts import run_experiments
from src.experiments.runs import Run
from tests.paths import ROOT

FLAGS = ("--", "--num-epochs", "1", "--batch-size", "2", "--num-workers", "0", "--device", "cpu")


@pytest.fixture
def call(call_main, phantoms, tmp_path):
    """Return a function that calls the command on a few phantoms."""

    def call(*words, flags=()):
        folders = ("--data-dir", phantoms, "--output-dir", tmp_path / "out put")
        return call_main(run_experiments.main, *words, *folders, *flags)

    return call


def test_a_queue_trains_what_is_not_done_and_scores_it(call, tmp_path):
    words = ("--model", "demo", "--folds", "0", "1", "--jobs", "2")
    outcome = call(*words, flags=FLAGS)
    assert outcome.code == 0, outcome.out
    assert outcome.out.startswith("2 trainings, 2 epochs left\n")
    assert outcome.out.endswith("2 of 2 trainings are done\n")
    runs = [Run("demo", fold, "", tmp_path / "out put") for fold in (0, 1)]
    assert all(run.scores_path.exists() for run in runs)
    before = [run.last_checkpoint_path.stat().st_mtime_ns for run in runs]
    again = call(*words, flags=FLAGS)
    assert (again.code, again.out.count("is done already")) == (0, 2)
    assert before == [run.last_checkpoint_path.stat().st_mtime_ns for run in runs]


def test_a_queue_that_leaves_something_undone_ends_with_1(call):
    weights = ("--init-weights", "/no/such.safetensors")
    outcome = call("--model", "demo", flags=(*FLAGS, *weights))
    assert outcome.code == 1
    assert "demo_fold_0: not done: exit code 2: error: /no/such.safetensors" in outcome.out
    assert outcome.out.endswith("0 of 1 trainings are done\n")
    assert outcome.err == "not done: demo_fold_0\n"


def test_a_dry_run_prints_a_script_of_what_is_left(call, tmp_path):
    flags = (*FLAGS, "--precision", "fp32")
    outcome = call("--model", "demo", "--seeds", "7", "--run", "x", "--dry-run", flags=flags)
    assert outcome.code == 0
    head, job, train, metric = outcome.out.splitlines()
    assert (head, job) == ("# 1 training, 1 epoch left", "# 0 demo_x_seed7_fold_0: 0 of 1 epochs")
    assert shlex.split(train)[-2:] == ["--seed", "7"]
    assert "--precision fp32" in train and "--action check_metric" in metric
    assert list(tmp_path.iterdir()) == []
    subprocess.run(["bash", "-e"], input=outcome.out, text=True, check=True, capture_output=True)
    again = call("--model", "demo", "--seeds", "7", "--run", "x", "--dry-run", flags=flags)
    assert again.out == "# 1 training, 0 epochs left\n# 0 demo_x_seed7_fold_0: 1 of 1 epochs\n"


def test_a_dry_run_estimates_the_time(call):
    words = ("--model", "demo", "--folds", "0", "1", "2", "--dry-run", "--epoch-minutes", "50")
    assert call(*words, "--jobs", "1").out.startswith("# 3 trainings, 48 epochs left, about 40 h")
    assert call(*words, "--jobs", "3").out.startswith("# 3 trainings, 48 epochs left, about 13 h")


def test_the_folders_of_the_runs_are_listed(call, tmp_path):
    outcome = call("--model", "demo", "resnet50_512", "--folds", "1", "3", "--list-runs")
    names = ["demo_fold_1", "demo_fold_3", "resnet50_512_fold_1", "resnet50_512_fold_3"]
    assert outcome.out.splitlines() == [str(tmp_path / "out put" / name) for name in names]


def test_each_set_makes_runs_of_its_own(call):
    words = ("--model", "demo", "--folds", "1", "2", "--list-runs")
    settings = ("--set", "hflip=false", "n_epochs=2", "--set", "n_epochs=3")
    outcome = call(*words, *settings)
    assert [line.rpartition("/")[-1] for line in outcome.out.splitlines()] == [
        f"demo_{tag}_fold_{fold}" for tag in ("hflip-False_n_epochs-2", "n_epochs-3")
        for fold in (1, 2)
    ]  # fmt: skip
    outcome = call(*words, *settings, "--run", "same")
    assert outcome.err.startswith("error: demo_same_fold_1: two different trainings would have")


def test_one_job_is_picked_by_its_number(call):
    words = ("--model", "demo", "--folds", "3", "1", "--list-runs")
    assert call(*words, "--job", "1").out.endswith("/demo_fold_1\n")
    outcome = call(*words, "--job", "2")
    assert outcome.code == 2
    assert outcome.err == "error: --job 2: there are 2 trainings, from 0\n"


def test_plans_are_taken_together(call, tmp_path):
    paths = [tmp_path / f"{n}.toml" for n in range(2)]
    for n, path in enumerate(paths):
        path.write_text(f"[[experiments]]\nmodel = ['demo']\nfolds = [0, {n + 1}]\nrun = 'own'\n")
    outcome = call("--plan", *paths, "--run", "all", "--list-runs")
    assert [line.rpartition("/")[-1] for line in outcome.out.splitlines()] == [
        f"demo_all_own_fold_{fold}" for fold in range(3)
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give either --plan or --model"),
        (("--model", "demo", "--plan", "a.toml"), "give either --plan or --model"),
        (("--plan", "a.toml", "--folds", "1"), "--plan cannot be combined with --folds: the plan"),
        (("--plan", "a.toml", "--seeds", "1"), "--plan cannot be combined with --seeds: the plan"),
        (("--plan", "a.toml"), "a.toml: cannot be read: No such file"),
        (("--model", "dem"), "--model 'dem': no such experiment; did you mean demo?"),
        (("--model", "demo", "--set", "img_size"), "--set 'img_size': FIELD=VALUE would be right"),
        (("--model", "demo", "--jobs", "0"), "argument --jobs: 0 is less than 1"),
        (("--model", "demo", "--", "--overlays"), "--action train takes no --overlays"),
        (("--model", "demo", "--", "cache"), "unrecognized arguments: cache"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_begins(call_main, words, message):
    outcome = call_main(run_experiments.main, *words)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {message}")
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


@pytest.mark.parametrize(
    "words",
    [
        ("--action", "check_metric"),
        ("--list-models",),
        ("--model", "lite0_192"),
        ("--fold", "1"),
        ("--folds", "1"),
        ("--run=other",),
        ("--set", "hflip=false"),
        ("--data-dir", "elsewhere"),
        ("--output-dir", "elsewhere"),
        ("--seed", "2"),
    ],
)
def test_what_the_queue_says_itself_cannot_be_said_behind_it(call_main, words):
    queue = ("--model", "demo", "--seeds", "1", "--set", "img_size=224", "--dry-run")
    outcome = call_main(run_experiments.main, *queue, "--", "--cache", *words)
    name = words[0].partition("=")[0]
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {name} cannot be one of the flags of every training")
    assert (outcome.err.count("\n"), outcome.out) == (1, "")


def test_one_seed_for_all_can_be_a_flag_of_every_training(call):
    outcome = call("--model", "demo", "--dry-run", flags=("--", "--seed", "3"))
    assert outcome.code == 0
    assert "--seed 3" in outcome.out


# In place of Python: a queue that ends on SIGTERM, after its training has saved its state.
FAKE_QUEUE = """#!/bin/bash
trap 'sleep 0.5; touch saved; exit 143' TERM
echo "$@" >words
while sleep 0.1; do :; done
"""


def test_the_script_for_slurm_saves_the_state_and_goes_back_into_the_queue(tmp_path):
    text = (ROOT / "docs" / "scaling.md").read_text()
    script, = (block for block in re.findall(r"```\n(#!/bin/bash\n.*?)```", text, re.DOTALL)
               if "run_experiments.py" in block)  # fmt: skip
    programs = {
        ".venv/bin/python": FAKE_QUEUE,
        "bin/scontrol": '#!/bin/bash\n[[ -e saved ]] && echo "$@" >requeued\n',
    }
    for name, program in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(program)
        path.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_JOB_ID": "12345",
    }
    batch = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=environment)
    while not (tmp_path / "words").exists():
        time.sleep(0.05)
    batch.send_signal(signal.SIGTERM)
    assert batch.wait() == 0
    words = (tmp_path / "words").read_text().split()
    assert words == ["scripts/run_experiments.py", "--plan", "plan.toml", "--job", "3"]
    assert (tmp_path / "requeued").read_text() == "requeue 12345\n"
