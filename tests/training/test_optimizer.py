import copy

import numpy as np
import pytest
import torch

from src.experiments.checkpoints import Checkpoint, load_checkpoint
from src.training.optimizer import Optimization, Scheduler, make_optimizer
from tests.retinanet.test_model import tiny_model
from tests.training.test_engine import experiment


def test_adam_moves_all_parameters_without_weight_decay():
    model = tiny_model()
    optimizer = make_optimizer(model, experiment(learning_rate=1e-5))
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.Adam)
    assert (group["lr"], group["weight_decay"]) == (1e-5, 0)
    assert len(group["params"]) == len(list(model.parameters()))


def test_sgd_gives_each_part_the_second_places_rate():
    model = tiny_model()
    optimizer = make_optimizer(model, experiment(optimizer="sgd", learning_rate=0.01))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"encoder": 0.002, "pyramid": 0.01, "box_head": 0.02, "class_head": 0.01,
                "global_head": 0.01}  # fmt: skip
    for name, parameter in model.named_parameters():
        assert rates.pop(id(parameter)) == pytest.approx(expected[name.split(".")[0]])
    assert not rates
    assert {group["momentum"] for group in optimizer.param_groups} == {0.95}


def rates_of(settings, n_epochs, losses=None, steps_per_epoch=2):
    """The learning rate at the start of each epoch."""
    optimizer = make_optimizer(tiny_model(), settings)
    scheduler = Scheduler(optimizer, settings, steps_per_epoch)
    rates = []
    for epoch in range(n_epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(steps_per_epoch):
            optimizer.step()
            scheduler.after_step()
        scheduler.after_epoch(losses[epoch] if losses else 1.0)
    return rates


def test_plateau_cuts_the_rate_after_five_epochs_without_progress():
    losses = [1.0, 0.9, 0.8, *[0.85] * 7]
    rates = rates_of(experiment(learning_rate=1e-5), 10, losses)
    assert rates == pytest.approx([1e-5] * 8 + [2e-6] * 2)


def test_milestones_divide_the_rate_after_epochs_8_16_and_20():
    settings = experiment(scheduler="milestones", learning_rate=1.0)
    expected = [1.0] * 8 + [0.1] * 8 + [0.01] * 4 + [0.001] * 2
    assert rates_of(settings, 22) == pytest.approx(expected)


def test_one_cycle_rises_to_the_rate_and_falls_to_nothing():
    settings = experiment(scheduler="one_cycle", learning_rate=1e-2, n_epochs=20)
    rates = rates_of(settings, 20, steps_per_epoch=5)
    peak = int(np.argmax(rates))
    assert max(rates) == pytest.approx(1e-2, rel=0.01)
    assert rates[0] < 1e-3
    assert rates[-1] < 1e-3
    assert 4 <= peak <= 8
    assert rates[:peak] == sorted(rates[:peak])


@pytest.mark.parametrize("scheduler", ["plateau", "milestones", "one_cycle"])
def test_a_scheduler_goes_on_from_its_saved_state(scheduler, tmp_path):
    settings = experiment(scheduler=scheduler, learning_rate=1e-2, n_epochs=12)

    def advance(optimizer, scheduler, epochs):
        rates = []
        for _ in epochs:
            for _ in range(2):
                optimizer.step()
                scheduler.after_step()
            scheduler.after_epoch(1.0)
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    first = make_optimizer(tiny_model(), settings)
    first_scheduler = Scheduler(first, settings, 2)
    advance(first, first_scheduler, range(5))
    states = {"optimizer": first.state_dict(), "scheduler": first_scheduler.state_dict()}
    path = tmp_path / "last.pt"
    Checkpoint("demo", {}, 4, {}, copy.deepcopy(states)).save(path)
    expected = advance(first, first_scheduler, range(5, 12))

    second = make_optimizer(tiny_model(), settings)
    second_scheduler = Scheduler(second, settings, 2)
    loaded = load_checkpoint(path, "demo", resume=True).training
    second.load_state_dict(loaded["optimizer"])
    second_scheduler.load_state_dict(loaded["scheduler"])
    assert advance(second, second_scheduler, range(5, 12)) == expected
    assert len(set(expected)) > 1


def test_a_state_of_another_device_keeps_the_kernel_of_this_one():
    saved, own = (Optimization(tiny_model(), experiment(), steps_per_epoch=1) for _ in range(2))
    state = saved.state_dict()
    state["optimizer"]["param_groups"][0]["fused"] = True  # as on a GPU
    own.load_state_dict(state)
    assert not own.optimizer.param_groups[0]["fused"]


def scaled(model, scale):
    optimization = Optimization(model, experiment(), steps_per_epoch=1, scales_loss=True)
    optimization.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return optimization


def one_gradient(optimization, model, value):
    optimization.clear_gradients()
    optimization.backward(sum(parameter.sum() for parameter in model.parameters()) * value)
    return optimization.clip_gradients()


def test_the_gradient_is_clipped_without_the_losss_scale():
    models = [tiny_model(), tiny_model()]
    plain = Optimization(models[0], experiment(), steps_per_epoch=1)
    norms = [
        one_gradient(optimization, model, 1e-3)
        for optimization, model in zip((plain, scaled(models[1], 2.0**10)), models, strict=True)
    ]
    torch.testing.assert_close(norms[1], norms[0])
    gradients = [next(model.parameters()).grad for model in models]
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")  # the first is left out
def test_a_step_that_overflows_moves_the_rate_alone_and_lowers_the_scale():
    model = tiny_model()
    settings = experiment(scheduler="one_cycle", n_epochs=10)
    optimization = Optimization(model, settings, steps_per_epoch=1, scales_loss=True)
    before, rate = copy.deepcopy(model.state_dict()), optimization.learning_rate
    scale = optimization.scaler.get_scale()
    norm = one_gradient(optimization, model, torch.inf)
    assert not norm.isfinite()
    assert optimization.guards_overflow
    optimization.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert optimization.scaler.get_scale() == scale / 2
    assert optimization.learning_rate > rate


def test_an_overflow_at_the_smallest_scale_is_no_overflow():
    assert not scaled(tiny_model(), 2.0**-10).guards_overflow


def test_the_losss_scale_goes_on_from_its_saved_state(tmp_path):
    first = scaled(tiny_model(), 2.0**7)
    path = tmp_path / "last.pt"
    Checkpoint("demo", {}, 0, {}, first.state_dict()).save(path)
    second = Optimization(tiny_model(), experiment(), steps_per_epoch=1, scales_loss=True)
    second.load_state_dict(load_checkpoint(path, "demo", resume=True).training)
    assert second.scaler.get_scale() == 2.0**7
