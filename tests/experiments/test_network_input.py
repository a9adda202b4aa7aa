"""A network normalises its input by itself, wherever its weights go."""

from dataclasses import replace

import pytest
import torch

from src.experiments.checkpoints import load_checkpoint
from src.experiments.networks import build_model, load_network
from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.prediction.inference import load_networks
from src.prediction.provenance import Member, NetworkSet
from src.retinanet.encoders import timm_encoder
from src.retinanet.ensemble import Ensemble
from src.retinanet.settings import Normalisation
from tests.made_checkpoints import make_checkpoint

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
            Member(
                run=replace(run, fold=i),
                experiment=experiment,
                epoch=0,
                path=replace(run, fold=i).checkpoint_path(0),
            )
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
