"""Files of a finished run that the version before the rooms wrote (commit 104849b) are still read.

Its network has coarse weights, one magnitude to a layer, so that the archive is small.
"""

import tarfile

import numpy as np
import pytest

from src import scores, train_runner
from src.experiments.checkpoints import load_checkpoint
from src.experiments.experiment_file import read_stored_training
from src.experiments.history import read_history
from src.experiments.runs import load_run
from src.prediction.predictions import load_predictions
from src.scoring.sweep import load_sweep
from tests.paths import ROOT

ARCHIVE = ROOT / "tests" / "data" / "run_before_rooms.tar.xz"
N_VALID = 5


@pytest.fixture
def old_output(tmp_path):
    """Unpack the folder of all runs: demo on fold 0, and an ensemble of its two epochs."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "output", filter="data")
    return tmp_path / "output"


def test_what_describes_an_old_run_is_read(old_output):
    run = load_run(old_output / "demo_fold_0")
    stored = read_stored_training(run.experiment_path)
    assert (stored.model, stored.fold, stored.seed) == ("demo", 0, 1234)
    history = read_history(run.history_path, ["train_loss", "valid_regression"])
    assert history["epoch"].tolist() == [0, 1]
    assert run.epochs_with_predictions() == [0, 1]
    assert load_sweep(run.scores_path).epochs == (0, 1)
    assert load_sweep(run.dir / "sweep.npz").run.model == "demo"


def test_checkpoints_of_an_old_run_are_read(old_output):
    run = load_run(old_output / "demo_fold_0")
    (epoch,) = run.epochs_with_checkpoint()
    path, last = run.find_checkpoint(epoch), run.find_last_checkpoint()
    assert path == run.dir / "checkpoints" / "001.pt"
    assert last == run.dir / "checkpoints" / "last.pt"
    assert load_checkpoint(path, "demo").facts.epoch == 1
    state = load_checkpoint(last, "demo", resume=True).facts.training
    assert state is not None
    assert state.progress["epoch"] == 2


def test_predictions_of_an_old_ensemble_name_its_networks(old_output):
    path = old_output / "demo_ensemble_fold_0" / "predictions" / "001.npz"
    provenance = load_predictions(path).provenance
    assert [(n.model, n.epoch, n.weight) for n in provenance.networks] == [
        ("demo", 0, 0.5),
        ("demo", 1, 0.5),
    ]
    assert provenance.ensemble is not None
    assert (provenance.ensemble.size_rule, provenance.ensemble.k) == ("percentile", 0.9)


def test_an_old_checkpoint_finds_the_boxes_that_it_found(old_output, phantoms, call_main):
    run = load_run(old_output / "demo_fold_0")
    before = load_predictions(run.predictions_path(1))
    folders = ("--data-dir", phantoms, "--output-dir", old_output)
    arguments = ("--action", "generate_predictions", "--model", "demo", "--epoch", 1)
    outcome = call_main(
        train_runner.main, *arguments, *folders, "--overwrite", "--num-workers", "0"
    )
    assert outcome.code == 0, outcome.err
    after = load_predictions(run.predictions_path(1))
    assert len(after) == N_VALID
    assert after.ids.tolist() == before.ids.tolist()
    np.testing.assert_array_equal(after.offsets, before.offsets)
    np.testing.assert_allclose(after.scores, before.scores, atol=1e-5)
    np.testing.assert_allclose(after.class_probs, before.class_probs, atol=1e-5)


def test_an_old_run_is_scored_and_resumed(old_output, phantoms, call_main):
    assert call_main(scores.main, old_output / "demo_fold_0").code == 0
    folders = ("--data-dir", phantoms, "--output-dir", old_output)
    arguments = ("--model", "demo", "--num-epochs", "2", "--batch-size", "2", "--resume")
    outcome = call_main(train_runner.main, *arguments, *folders, "--num-workers", "0")
    assert outcome.code == 0, outcome.err
    assert "all 2 epochs are done" in outcome.out
