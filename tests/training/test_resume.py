"""A training that is killed, again and again, ends as one that never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
import torch

from src.experiments.checkpoints import load_checkpoint
from src.experiments.runs import Run
from src.prediction.predictions import ARRAYS, load_predictions
from src.system.folder_lock import locked_dir
from src.train_runner import main
from tests.conftest import HANGS_AFTER, run_main
from tests.histories import repeatable_of
from tests.paths import ROOT

SCRIPT = ROOT / "src" / "train_runner.py"
TRAINING = ("--model", "demo", "--num-epochs", "2", "--batch-size", "1", "--num-workers", "1")
N_KILLS = int(os.environ.get("N_KILLS", "2"))  # more for a long run


def start(phantoms, output_dir, *flags):
    """Start a training as a process group of its own, as a terminal does."""
    folders = ("--data-dir", phantoms, "--output-dir", output_dir)
    command = [sys.executable, SCRIPT, "--action", "train", *TRAINING, *folders, *flags]
    return subprocess.Popen(
        [str(part) for part in command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def assert_same_run(run, expected):
    for epoch in range(2):
        weights = [load_checkpoint(r.checkpoint_path(epoch), "demo").model for r in (run, expected)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
        predictions = [load_predictions(r.predictions_path(epoch)) for r in (run, expected)]
        for name in ARRAYS:
            np.testing.assert_array_equal(*(getattr(p, name) for p in predictions))
    assert repeatable_of(run) == repeatable_of(expected)


def written_at(path):
    return path.stat().st_mtime_ns if path.exists() else None


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Let this process round as the others do: sums depend on the number of threads."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def whole(phantoms, tmp_path_factory):
    """Return a run that nothing interrupted."""
    output_dir = tmp_path_factory.mktemp("whole")
    folders = ("--data-dir", phantoms, "--output-dir", output_dir)
    assert run_main(main, *TRAINING, *folders) == 0
    return Run("demo", 0, "", output_dir)


def test_a_training_killed_at_random_moments_gives_the_whole_run_bit_for_bit(
    phantoms, whole, tmp_path, call_main
):
    run = Run("demo", 0, "", tmp_path)
    moments = random.Random(0)
    for _ in range(N_KILLS):
        process = start(phantoms, tmp_path, "--resume", "--checkpoint-minutes", "0")
        before = written_at(run.last_checkpoint_path)
        while process.poll() is None and written_at(run.last_checkpoint_path) == before:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.7))  # now it saves, steps, validates or has finished
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
    folders = ("--data-dir", phantoms, "--output-dir", tmp_path)
    outcome = call_main(main, *TRAINING, *folders, "--resume")
    assert outcome.code == 0, outcome.err
    assert_same_run(run, whole)


def test_ctrl_c_saves_the_step_and_says_how_to_go_on(phantoms, whole, tmp_path, call_main):
    run = Run("demo", 0, "", tmp_path)
    process = start(phantoms, tmp_path, "--checkpoint-minutes", "0")
    wait_until(run.last_checkpoint_path.exists, process)
    first = written_at(run.last_checkpoint_path)
    wait_until(lambda: written_at(run.last_checkpoint_path) != first, process)  # now it steps
    os.killpg(process.pid, signal.SIGINT)  # the data loader's workers hear it too
    _, err = process.communicate(timeout=HANGS_AFTER)
    last = err.splitlines()[-1]
    assert process.returncode == 128 + signal.SIGINT
    assert last.startswith("stopped by SIGINT in epoch 0, ")
    assert last.endswith("batches; --resume goes on from there")
    assert "Traceback" not in err
    state = load_checkpoint(run.last_checkpoint_path, "demo", resume=True).facts.training
    assert state is not None
    progress = state.progress
    assert progress["n_batches"] == int(last.split("epoch 0, ")[1].split()[0])

    folders = ("--data-dir", phantoms, "--output-dir", tmp_path)
    outcome = call_main(main, *TRAINING, *folders, "--resume")
    assert f"after {progress['n_batches']} of" in outcome.out
    assert_same_run(run, whole)


def test_a_second_training_of_the_same_run_is_refused_until_the_first_one_is_dead(
    phantoms, tmp_path, call_main
):
    first = start(phantoms, tmp_path)
    run = Run("demo", 0, "", tmp_path)
    lock = run.dir / ".lock"
    wait_until(lambda: lock.exists() and lock.read_text(), first)
    folders = ("--data-dir", phantoms, "--output-dir", tmp_path)
    outcome = call_main(main, *TRAINING, *folders, "--resume")
    assert outcome.code == 2
    assert f"process {first.pid} on " in outcome.err
    assert "is training there" in outcome.err
    wait_until(run.experiment_path.exists, first)  # then it starts its workers
    os.kill(first.pid, signal.SIGKILL)  # they may live on for seconds
    first.wait()
    with locked_dir(run.dir, "is training there"):
        pass


def test_experiment_json_repeats_the_training(phantoms, whole, tmp_path, call_main):
    folders = ("--data-dir", phantoms, "--output-dir", tmp_path)
    flags = ("--from-experiment", whole.experiment_path, "--num-workers", "0")
    outcome = call_main(main, *flags, *folders)
    assert outcome.code == 0, outcome.err
    run = Run("demo", 0, "", tmp_path)
    assert_same_run(run, whole)
    told = [json.loads(r.experiment_path.read_text()) for r in (run, whole)]
    assert told[0]["settings"] == told[1]["settings"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"data_fingerprint": "0" * 64}, "fingerprint"),
        ({"seed": "7"}, "seed cannot be '7'"),
        ({"settings": {"encoder": "resnet18"}}, "not an experiment.json of this version"),
        ({"precision": None}, "precision cannot be None"),
    ],
)
def test_an_experiment_that_cannot_be_repeated_is_refused(
    phantoms, whole, tmp_path, call_main, change, match
):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(json.loads(whole.experiment_path.read_text()) | change))
    folders = ("--data-dir", phantoms, "--output-dir", tmp_path)
    outcome = call_main(main, "--from-experiment", path, "--num-workers", "0", *folders)
    assert outcome.code == 2
    assert match in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("flags", [("--batch-size", "2"), ("--fold", "0"), ("--model", "demo")])
def test_from_experiment_takes_no_other_settings(phantoms, whole, call_main, flags):
    outcome = call_main(main, "--from-experiment", whole.experiment_path, *flags)
    assert outcome.code == 2
    assert f"--from-experiment cannot be combined with {flags[0]}; " in outcome.err
