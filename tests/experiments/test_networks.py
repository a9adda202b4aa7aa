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


NORMALISED = replace(EXPERIMENTS["demo"], normalisation="encoder")
BY_HAND = replace(EXPERIMENTS["demo"], normalisation=(0.5, 0.25), input_channels=1)


def numbers_of(network):
    return [
        numbers if numbers is None else numbers.flatten().tolist()
        for numbers in (network.input_mean, network.input_deviation)
    ]


def save_weights(experiment, path):
    torch.manual_seed(0)
    network = build_model(experiment).eval()
    make_checkpoint(network.state_dict(), settings=experiment).save(path)
    return network


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"normalisation": "none"}, [None, None]),
        ({"normalisation": "encoder"}, [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]),
        ({"normalisation": "encoder", "input_channels": 1}, [[0.449], [0.226]]),
        ({"normalisation": (0.5, 0.25)}, [[0.5], [0.25]]),
    ],
)
def test_a_network_normalises_as_its_experiment_says(changes, expected):
    found = numbers_of(build_model(replace(EXPERIMENTS["demo"], **changes)))
    assert found == [numbers and pytest.approx(numbers) for numbers in expected]


@pytest.mark.parametrize("experiment", [NORMALISED, BY_HAND], ids=["encoder", "by hand"])
def test_a_checkpoint_normalises_as_it_was_trained_whatever_timm_says_today(
    experiment, tmp_path, monkeypatch
):
    path = tmp_path / "000.safetensors"
    saved = save_weights(experiment, path)
    other = Normalisation(mean=(0.1, 0.2, 0.3), deviation=(0.1, 0.2, 0.3))
    monkeypatch.setattr(timm_encoder, "normalisation", lambda name: other)
    loaded = load_network(load_checkpoint(path, "demo"), path).eval()
    assert numbers_of(loaded) == numbers_of(saved)
    images = torch.rand(1, 1, 192, 192)
    with torch.inference_mode():
        for ours, expected in zip(loaded(images), saved(images), strict=True):
            torch.testing.assert_close(ours, expected)


@torch.inference_mode()
def test_networks_with_different_inputs_are_an_ensemble(tmp_path):
    """Normalisation belongs to each network: nothing has to agree."""
    run = Run("demo", 0, "", tmp_path)
    experiments = (EXPERIMENTS["demo"], NORMALISED, BY_HAND)
    networks = NetworkSet(
        members=tuple(
            Member(run=run, experiment=experiment, epoch=i, path=run.checkpoint_path(i))
            for i, experiment in enumerate(experiments)
        )
    )
    for member in networks.members:
        save_weights(member.experiment, member.path)
    loaded = [network.eval() for network in load_networks(networks)]
    images = torch.rand(1, 1, 192, 192)
    found = Ensemble(loaded)(images)
    alone = [network(images).class_log_probs.exp() for network in loaded]
    torch.testing.assert_close(found.class_log_probs.exp(), sum(alone) / 3)
    assert not torch.equal(alone[0], alone[1])
