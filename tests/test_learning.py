import math
from dataclasses import replace

import pytest
import torch

from src.acceleration import Acceleration
from src.learning import (
    Learner,
    NonFiniteError,
    Progress,
    StepKey,
    seed_step,
    train_epoch,
)
from src.optimization import Optimization, make_optimizer
from tests.retinanet.test_model import tiny_model
from tests.test_engine import CPU, flat_weights, info, make_batches


def make_learner(
    model, *, settings=None, optimizer=None, n_batches=1, seed=0, clip_norm=1.0, **options
):
    settings = replace(settings or info(), clip_norm=clip_norm)
    optimization = Optimization(model, settings, steps_per_epoch=n_batches)
    if optimizer is not None:
        optimization.optimizer = optimizer
    return Learner(
        model=model, optimization=optimization, acceleration=Acceleration(device=CPU), seed=seed,
        **options,
    )  # fmt: skip


def train(model, batches, *, epoch=0, **options):
    """Train an epoch; return its mean losses."""
    progress = Progress(epoch=epoch)
    train_epoch(make_learner(model, n_batches=len(batches), **options), batches, progress)
    return progress.running.means()


def test_seed_step_repeats_a_step_and_tells_steps_apart():
    def draw(*key):
        seed_step(StepKey(*key))
        return torch.rand(5).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    drawn = [draw(*key) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({tuple(values) for values in drawn}) == 4


def test_train_epoch_repeats_itself_whatever_was_drawn_before():
    weights = []
    for n_drawn in (0, 7):
        model = tiny_model()
        torch.rand(n_drawn)
        train(model, make_batches([2, 2]))
        weights.append(flat_weights(model))
    assert torch.equal(*weights)


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}])
def test_train_epoch_draws_dropout_from_seed_and_epoch(change):
    models = [tiny_model(), tiny_model()]
    train(models[0], make_batches([2]))
    train(models[1], make_batches([2]), **change)
    assert not torch.equal(*map(flat_weights, models))


def test_train_epoch_lowers_the_loss():
    model, batches = tiny_model(train_batch_norm=True), make_batches([4])
    settings = info(learning_rate=1e-2)
    optimizer = make_optimizer(model, settings)
    losses = [train(model, batches, optimizer=optimizer)["loss"] for _ in range(8)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_loss_that_is_not_finite_stops_before_the_weights_move():
    model, batches = tiny_model(), make_batches([2, 2])
    batches[1].images[0, 0, 5, 5] = math.nan
    healthy = tiny_model()
    with pytest.raises(NonFiniteError, match=r"epoch 3, step 1: .*patient-2, patient-3"):
        train(model, batches, epoch=3)
    train(healthy, batches[:1], epoch=3)
    assert torch.equal(flat_weights(model), flat_weights(healthy))


@pytest.mark.parametrize("clip_norm", [0.05, 0.2])
def test_the_gradient_is_clipped(clip_norm):
    model = tiny_model()
    before = flat_weights(model)
    plain = torch.optim.SGD(model.parameters(), lr=1.0)
    train(model, make_batches([2]), optimizer=plain, clip_norm=clip_norm)
    assert (flat_weights(model) - before).norm().item() == pytest.approx(clip_norm, rel=1e-3)
