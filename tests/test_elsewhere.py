"""What a GPU waits for: the same few transfers for a batch, however many images it has."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from src.prediction.inference import predict
from src.retinanet.acceleration import Acceleration
from src.retinanet.ensemble import Ensemble
from src.retinanet.settings import DEFAULT_WEAK, IMAGENET
from src.training.epoch import train_epoch, validate
from src.training.progress import Progress
from tests.elsewhere import DEVICE, PretendedDevice
from tests.made_batches import PROVENANCE, make_batches, model_that_finds
from tests.retinanet.test_model import tiny_model
from tests.training.test_engine import experiment
from tests.training.test_learning import make_learner

THERE = Acceleration(device=DEVICE)


@pytest.fixture(autouse=True)
def _without_autocast(monkeypatch):
    monkeypatch.setattr(Acceleration, "arithmetic", lambda _: nullcontext())


def train_once(model, batches):
    learner = make_learner(model, acceleration=THERE)
    train_epoch(learner, batches, Progress(epoch=0), shows_progress=False)


def validate_once(model, batches):
    _, found = validate(model, batches, acceleration=THERE, provenance=PROVENANCE)
    assert len(found.scores)


def predict_once(model, batches):
    found = predict(model, batches, acceleration=THERE, provenance=PROVENANCE, weak=DEFAULT_WEAK)
    assert len(found.scores)


def count_waits(action, model, n_images):
    """Waits of a batch, after another that made what is kept."""
    with PretendedDevice() as device:
        model.to(DEVICE)
        for batches in (make_batches([n_images]), make_batches([n_images])):
            device.waits.clear()
            action(model, batches)
    return {name: count for name, count in device.waits.items() if count}


@pytest.mark.parametrize("n_images", [2, 5])
def test_a_training_step_waits_for_levels_positives_and_losses(n_images):
    waits = count_waits(train_once, tiny_model(), n_images)
    assert waits == {"a copy to the host": 2, "nonzero": 1}


def train_by_the_recipe(model, batches):
    settings = experiment(optimizer="adamw", weight_decay=0.05, scheduler="cosine", ema_decay=0.9)
    learner = make_learner(model, acceleration=THERE, settings=settings)
    for _ in range(2):  # the average begins with the first step
        train_epoch(learner, batches, Progress(epoch=0), shows_progress=False)
    with learner.optimization.averaged():
        pass


def test_normalisation_average_and_decay_wait_for_nothing():
    waits = count_waits(train_by_the_recipe, tiny_model(normalisation=IMAGENET), 2)
    assert waits == {
        name: 2 * count for name, count in count_waits(train_once, tiny_model(), 2).items()
    }


@pytest.mark.parametrize("n_images", [2, 5])
def test_validation_waits_as_often_for_many_images_as_for_few(n_images):
    waits = count_waits(validate_once, model_that_finds(), n_images)
    assert waits == {"a copy to the host": 10, "nonzero": 5, "a copy to the device": 2}


@pytest.mark.parametrize("n_images", [2, 5])
def test_prediction_waits_as_often_for_many_images_as_for_few(n_images):
    waits = count_waits(predict_once, model_that_finds(), n_images)
    assert waits == {"a copy to the host": 8, "nonzero": 4, "a copy to the device": 1}


def test_an_ensemble_leaves_nothing_on_the_host():
    networks = [model_that_finds() for _ in range(2)]
    ensemble = Ensemble(networks, size_rule="percentile", k=0.9, hflip=True)
    assert "a mask" not in count_waits(predict_once, ensemble, 2)


def test_a_tensor_left_on_the_host_is_found():
    with PretendedDevice():
        layer = nn.Linear(3, 1).to(DEVICE)
        with pytest.raises(AssertionError, match="mixes the device with the host"):
            layer(torch.rand(2, 3))
