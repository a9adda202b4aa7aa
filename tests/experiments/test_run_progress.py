import json
import shutil
from dataclasses import replace

import pytest

from src.experiments.run_progress import RunProgress, count_epochs, find_progress
from src.experiments.runs import Run
from src.experiments.table import get_experiment
from src.system.errors import InputError


@pytest.fixture
def finished(trained, tmp_path):
    """Return a copy of a run of demo with both of its epochs."""
    run = Run("demo", 0, "", tmp_path)
    shutil.copytree(trained.dir, run.dir)
    return run


def keep_epochs(run, n_epochs):
    lines = run.history_path.read_text().splitlines(keepends=True)
    run.history_path.write_text("".join(lines[: 1 + n_epochs]))


def trained_as(**changes):
    """Return demo as the fixture trains it, with changes."""
    return replace(get_experiment("demo"), **{"n_epochs": 2, "batch_size": 2} | changes)


def test_a_run_that_is_not_there_has_all_epochs_left(tmp_path):
    run = Run("demo", 0, "", tmp_path)
    assert find_progress(run, trained_as(n_epochs=3)) == RunProgress(0, 3)


@pytest.mark.parametrize("n_done", [0, 1, 2])
def test_the_epochs_that_are_done_are_those_of_the_history(finished, n_done):
    keep_epochs(finished, n_done)
    progress = find_progress(finished, trained_as())
    assert progress == RunProgress(n_done, 2)
    assert progress.n_left == 2 - n_done


def test_a_run_that_stopped_in_its_first_epoch_has_none_done(finished):
    finished.history_path.unlink()
    assert count_epochs(finished) == 0


@pytest.mark.parametrize("seed", [None, 1234])
def test_a_run_that_was_trained_as_wanted_counts(finished, seed):
    assert find_progress(finished, trained_as(), seed).n_left == 0


@pytest.mark.parametrize(
    ("changes", "seed", "match"),
    [
        ({"batch_size": 4}, None, "was trained with batch_size 2, not 4; take another --run"),
        ({}, 7, "was trained with seed 1234, not 7"),
        ({"n_epochs": 3}, None, "was trained with n_epochs 2, not 3"),  # demo's is one-cycle
    ],
)
def test_a_run_that_was_trained_in_another_way_is_refused(finished, changes, seed, match):
    with pytest.raises(InputError, match=match) as caught:
        find_progress(finished, trained_as(**changes), seed)
    assert str(finished.dir) in str(caught.value)


@pytest.mark.parametrize(("n_epochs", "n_left"), [(1, 0), (2, 0), (5, 3)])
def test_a_schedule_that_does_not_depend_on_the_length_may_have_another(finished, n_epochs, n_left):
    content = json.loads(finished.experiment_path.read_text())
    content["settings"]["scheduler"] = "plateau"
    finished.experiment_path.write_text(json.dumps(content))
    wanted = trained_as(scheduler="plateau", n_epochs=n_epochs)
    assert find_progress(finished, wanted).n_left == n_left


def test_a_run_that_patience_ended_has_no_epoch_left(finished):
    keep_epochs(finished, 1)
    content = json.loads(finished.experiment_path.read_text()) | {"ended_by": "--patience"}
    finished.experiment_path.write_text(json.dumps(content))
    assert find_progress(finished, trained_as()) == RunProgress(1, 1)
