import json
from dataclasses import replace

import pytest

from src.experiments.checkpoints import CheckpointError, load_checkpoint
from src.experiments.experiment_file import StoredTraining, write_stored_training
from src.experiments.networks import load_network, trained_experiment
from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.system.errors import InputError
from tests.made_checkpoints import make_checkpoint

RUN_SETTINGS = replace(EXPERIMENTS["demo"], fit="pad", reduction="area", pyramid_width=32)


@pytest.fixture
def run(tmp_path):
    """Return a run whose settings are no longer those of the table."""
    run = Run("demo", 2, "", tmp_path)
    stored = StoredTraining(
        model="demo",
        fold=2,
        settings=RUN_SETTINGS,
        seed=7,
        precision="fp32",
        data_fingerprint="0" * 64,
    )
    write_stored_training(run, stored, {})
    return run


def test_a_checkpoint_says_what_its_weights_were_trained_with(run):
    settings = replace(RUN_SETTINGS, clip_boxes=True)
    make_checkpoint(settings=settings).save(run.checkpoint_path(5))
    assert trained_experiment(run, 5) == settings


def test_the_run_says_it_where_the_checkpoint_was_removed(run):
    assert trained_experiment(run, 5) == RUN_SETTINGS


def test_what_older_runs_do_not_say_is_as_it_was_then(run):
    content = json.loads(run.experiment_path.read_text())
    for name in ("fit", "grey", "reduction"):
        del content["settings"][name]
    run.experiment_path.write_text(json.dumps(content))
    formerly = replace(RUN_SETTINGS, fit="squeeze", grey="range", reduction="subsample")
    assert trained_experiment(run, 5) == formerly


def test_a_folder_of_predictions_alone_says_nothing(tmp_path):
    run = Run("demo", 2, "", tmp_path)
    run.dir.mkdir()
    run.experiment_path.write_text('{"model": "demo", "tag": "", "fold": 2, "members": []}')
    with pytest.raises(InputError, match=r"005\.safetensors: no such checkpoint; --action train"):
        trained_experiment(run, 5)


def test_an_experiment_that_has_left_the_table_is_known_by_its_run(tmp_path):
    run = Run("no_longer", 0, "", tmp_path)
    make_checkpoint(experiment="no_longer").save(run.checkpoint_path(5))
    assert trained_experiment(run, 5) == EXPERIMENTS["demo"]


def test_weights_of_another_network_than_their_settings_say_are_refused(tmp_path):
    path = tmp_path / "005.safetensors"
    make_checkpoint().save(path)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load_network(load_checkpoint(path), path)
