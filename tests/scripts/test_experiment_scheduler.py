"""Queues of trainings at work; what trains is a stand-in that copies a finished run."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from scripts.experiment_queue.forecast import Forecast
from scripts.experiment_queue.jobs import Job
from scripts.experiment_queue.scheduler import Scheduler
from scripts.experiment_queue.slots import Slot
from src.experiments.runs import Run
from src.experiments.table import get_experiment
from src.train_runner import main as run_action
from tests.conftest import HANGS_AFTER, run_main
from tests.paths import ROOT
from tests.system.test_folder_lock import held_elsewhere

# Copies the run of argv[1] to argv[2]; notes when it begins and ends, and where. It
# ends only when argv[3] trainings have begun.
TRAIN = """
import json, os, pathlib, shutil, sys, time
source, target, n_begun, notes = sys.argv[1:]
def note(what):
    with open(notes, "a") as file:
        file.write(json.dumps([what, target, os.environ["PLACE"]]) + "\\n")
note("begin")
while pathlib.Path(notes).read_text().count("begin") < int(n_begun):
    time.sleep(0.05)
shutil.copytree(source, target)
note("end")
"""
# As train_runner does: a signal ends it after it has saved its state, a second one at once.
TRAIN_UNTIL_STOPPED = """
import pathlib, signal, sys, time
folder, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
def stop(number, _):
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    (folder / "saving").touch()
    time.sleep(seconds)
    (folder / "saving").rename(folder / ("stopped by " + signal.Signals(number).name))
    sys.exit(128 + number)
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, stop)
folder.mkdir(parents=True)
time.sleep(1000)
"""
TRAINED = replace(get_experiment("demo"), n_epochs=2, batch_size=2)  # as the fixture of that name
FAIL = "import sys; print('half\\rwhole'); sys.exit('error: no such data')"


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """Return the folder of a run with two epochs and their scores."""
    run = Run("demo", 0, "", tmp_path_factory.mktemp("finished"))
    shutil.copytree(trained.dir, run.dir)
    metric = ("--action", "check_metric", "--model", "demo", "--output-dir", run.output_dir)
    assert run_main(run_action, *metric) == 0
    return run.dir


@pytest.fixture
def make_job(finished, tmp_path):
    """Return a function that makes a job whose training ends when some have begun."""

    def make(fold, n_begun=0):
        run = Run("demo", fold, "", tmp_path / "output")
        return job_of(run, TRAIN, finished, run.dir, n_begun, tmp_path / "notes")

    return make


def job_of(run, *words):
    command = (sys.executable, "-c", *map(str, words))
    return Job(run=run, experiment=TRAINED, seed=None, train=command, check_metric=("true",))


def work(jobs, *, n_slots=1):
    forecast = Forecast(n_slots)
    forecast.epochs_left = {job.run: 2 for job in jobs}
    slots = [Slot(f"slot {n}", {"PLACE": str(n)}) for n in range(n_slots)]
    Scheduler(jobs, slots, forecast).run()


def read_notes(tmp_path):
    return [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]


@pytest.mark.parametrize("n_slots", [1, 3])
def test_as_many_trainings_run_at_a_time_as_there_are_slots(make_job, tmp_path, n_slots):
    jobs = [make_job(fold, n_slots) for fold in range(4)]
    work(jobs, n_slots=n_slots)
    assert all(job.is_done() for job in jobs)
    running = most = 0
    for what, *_ in read_notes(tmp_path):
        running += 1 if what == "begin" else -1
        most = max(most, running)
    assert most == n_slots
    assert {place for _, _, place in read_notes(tmp_path)} == {str(n) for n in range(n_slots)}


def test_what_is_done_is_left_alone(make_job, tmp_path, capsys):
    jobs = [make_job(0), make_job(1)]
    work(jobs[:1])
    work(jobs)
    assert [target for _, target, _ in read_notes(tmp_path)] == [
        str(job.run.dir) for job in jobs for _ in ("begin", "end")
    ]
    assert "demo_fold_0: is done already" in capsys.readouterr().out


def test_each_epoch_is_told_with_what_is_left(make_job, capsys):
    work([make_job(0), make_job(1)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "demo_fold_0: begins on slot 0"
    assert lines[1].startswith("demo_fold_0: 2 of 2 epochs; 2 epochs left, about ")
    assert lines[-1] == "demo_fold_1: done; 0 epochs left"


def test_a_job_that_could_not_be_forecast_stops_no_other(finished, make_job, tmp_path):
    run = Run("demo", 7, "", tmp_path / "output")
    shutil.copytree(finished, run.dir)
    jobs = [job_of(run, FAIL), make_job(0)]
    Scheduler(jobs, [Slot("slot", {"PLACE": ""})], Forecast(1)).run()
    assert all(job.is_done() for job in jobs)


def test_a_training_that_fails_does_not_stop_the_others(make_job, tmp_path, capsys):
    bad = job_of(Run("demo", 7, "", tmp_path / "output"), FAIL)
    good = make_job(0)
    work([bad, good])
    assert good.is_done() and not bad.is_done()
    log = tmp_path / "output/queue/demo_fold_7/log.txt"
    assert f"demo_fold_7: not done: exit code 1: error: no such data; its log is {log}" in (
        capsys.readouterr().out
    )
    assert log.read_text().startswith(f"\n$ {shlex.quote(sys.executable)} -c ")
    assert "whole\n" in log.read_text()


def test_a_training_that_is_killed_is_named(tmp_path, capsys):
    kill = "import os; os.kill(os.getpid(), 9)"
    work([job_of(Run("demo", 0, "", tmp_path), kill)])
    assert "demo_fold_0: not done: killed by SIGKILL" in capsys.readouterr().out


def test_a_command_that_cannot_be_started_is_named(tmp_path, capsys):
    run = Run("demo", 0, "", tmp_path)
    work([Job(run=run, experiment=TRAINED, seed=None, train=("/no/such",), check_metric=())])
    assert "demo_fold_0: not done: [Errno 2]" in capsys.readouterr().out


def test_a_training_that_leaves_epochs_is_not_done(tmp_path, capsys):
    work([job_of(Run("demo", 0, "", tmp_path), "")])
    assert "demo_fold_0: not done: ended after 0 of 2 epochs" in capsys.readouterr().out


def test_a_run_that_was_trained_otherwise_is_not_touched(finished, tmp_path, capsys):
    run = Run("demo", 0, "", tmp_path / "output")
    shutil.copytree(finished, run.dir)
    other = replace(TRAINED, batch_size=99)
    job = Job(run=run, experiment=other, seed=None, train=("false",), check_metric=())
    work([job])
    assert f"not done: {run.dir}: was trained with batch_size 2" in capsys.readouterr().out
    assert not job.is_done()


def test_scores_that_are_missing_are_made_without_a_training(finished, tmp_path):
    run = Run("demo", 0, "", tmp_path / "output")
    shutil.copytree(finished, run.dir)
    run.scores_path.unlink()
    copy = ("cp", str(finished / "scores.npz"), str(run.scores_path))
    job = Job(run=run, experiment=TRAINED, seed=None, train=("false",), check_metric=copy)
    work([job])
    assert job.is_done()


def test_a_run_of_another_queue_comes_last_and_is_left_alone(make_job, tmp_path, capsys):
    jobs = [make_job(0), make_job(1)]
    with held_elsewhere(tmp_path / "output/queue/demo_fold_0") as other:
        work(jobs)
    assert [job.is_done() for job in jobs] == [False, True]
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("demo_fold_0: not done: ")
    assert f"process {other.pid} on " in last and last.endswith("runs this in another queue")


# A queue as a process of its own, which signals reach: two slots, three trainings.
QUEUE = f"""
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's children ignore it
sys.path.insert(0, {str(ROOT)!r})
from src.experiments.runs import Run
from src.system.command_line import report_errors
from tests.scripts.test_experiment_scheduler import TRAIN_UNTIL_STOPPED, job_of, work
output_dir, seconds = Path(sys.argv[1]), sys.argv[2]
runs = [Run("demo", fold, "", output_dir) for fold in range(3)]
with report_errors():
    work([job_of(run, TRAIN_UNTIL_STOPPED, run.dir, seconds) for run in runs], n_slots=2)
"""


@contextmanager
def queue(output_dir, seconds):
    """Start a queue whose trainings take some seconds to save their state; two of them run."""
    process = subprocess.Popen(
        [sys.executable, "-c", QUEUE, output_dir, str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(process, [output_dir / f"demo_fold_{fold}" for fold in (0, 1)])
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=HANGS_AFTER)


def wait_for(process, paths):
    while not all(path.exists() for path in paths):
        assert process.poll() is None
        time.sleep(0.05)


def names_in(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_trainings_and_starts_no_other(tmp_path, number):
    with queue(tmp_path, 0.3) as process:
        os.killpg(process.pid, number)  # as a terminal does, which reaches a whole group
        _, errors = process.communicate(timeout=HANGS_AFTER)
    assert process.returncode == 128 + number
    assert errors == f"stopped by {number.name}; the same command goes on from there\n"
    for fold in (0, 1):
        assert names_in(tmp_path / f"demo_fold_{fold}") == [f"stopped by {number.name}"]
    assert not (tmp_path / "demo_fold_2").exists()


def test_a_second_ctrl_c_ends_all_trainings_at_once(tmp_path):
    folders = [tmp_path / f"demo_fold_{fold}" for fold in (0, 1)]
    with queue(tmp_path, 1000) as process:
        process.send_signal(signal.SIGINT)
        wait_for(process, [folder / "saving" for folder in folders])
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=HANGS_AFTER)
    assert process.returncode == 130
    assert [names_in(folder) for folder in folders] == [["saving"], ["saving"]]
