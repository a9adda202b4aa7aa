import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

from src.experiments.checkpoints import load_checkpoint
from src.training.optimizer import Optimization, Scheduler, make_optimizer
from tests.made_checkpoints import as_version_1, make_checkpoint, make_state
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


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_rate_that_is_told_is_the_experiments_own(name):
    settings = experiment(optimizer=name, learning_rate=0.01)
    assert Optimization(tiny_model(), settings, steps_per_epoch=1).learning_rate == 0.01


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


def rates_by_step(settings, steps_per_epoch):
    """The learning rate at each step of a whole run, and after it."""
    whole = dataclasses.replace(settings, n_epochs=settings.n_epochs * steps_per_epoch)
    return rates_of(whole, whole.n_epochs + 1, steps_per_epoch=1)


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


def test_cosine_rises_over_the_warm_up_and_falls_to_nothing():
    settings = experiment(scheduler="cosine", warmup_share=0.2, learning_rate=1e-2, n_epochs=10)
    rates = rates_by_step(settings, 5)
    assert len(rates) == 51
    assert rates[:11] == pytest.approx([1e-2 * (step + 1) / 11 for step in range(10)] + [1e-2])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[30] == pytest.approx(1e-2 / 2)
    assert rates[50] == pytest.approx(0, abs=1e-12)


def test_cosine_without_a_warm_up_begins_at_the_rate():
    settings = experiment(scheduler="cosine", learning_rate=1e-2, n_epochs=2)
    assert rates_by_step(settings, 2)[0] == 1e-2


def test_adamw_draws_weights_towards_zero_whatever_the_gradient():
    settings = experiment(optimizer="adamw", weight_decay=0.5, learning_rate=0.1)
    model = tiny_model()
    weight, bias = model.encoder.stem.weight, model.encoder.stem.bias
    before = [weight.detach().clone(), bias.detach().clone()]
    optimizer = make_optimizer(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(bias.detach(), before[1])


def as_training(optimization):
    return make_state(**optimization.state())


def save_today(path, optimization):
    checkpoint = make_checkpoint(
        training=as_training(optimization), optimizer=optimization.tensors()
    )
    checkpoint.save(path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def save_as_version_1(path, optimization):
    checkpoint = make_checkpoint(
        training=as_training(optimization), optimizer=optimization.tensors()
    )
    content = as_version_1(checkpoint)
    content["training"]["optimizer"] = optimization.optimizer.state_dict()
    scheduler = optimization.scheduler
    content["training"]["scheduler"] = (
        scheduler.by_step or scheduler.by_epoch or scheduler.by_loss
    ).state_dict()
    torch.save(content, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def restored(path, settings, steps_per_epoch=2):
    """Make a training's optimizer anew, and let it go on from a file."""
    checkpoint = load_checkpoint(path, "demo", resume=True)
    assert checkpoint.facts.training is not None
    optimization = Optimization(tiny_model(), settings, steps_per_epoch=steps_per_epoch)
    optimization.load_state(checkpoint.facts.training, checkpoint.optimizer)
    return optimization


def advance(optimization, n_epochs):
    """Train some epochs of two steps on made-up gradients; return the rates and the weights."""
    rates = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_epochs):
        for _ in range(2):
            for parameter in optimization.parameters:
                gradient = torch.randn(parameter.shape, generator=generator)
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
            optimization.step()
        optimization.scheduler.after_epoch(1.0)
        rates.append(optimization.learning_rate)
    return rates, [parameter.detach().clone() for parameter in optimization.parameters]


@pytest.mark.parametrize("save", [save_today, save_as_version_1])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("scheduler", ["plateau", "milestones", "one_cycle", "cosine"])
def test_an_optimizer_and_its_rate_go_on_from_a_file_bit_for_bit(
    optimizer, scheduler, save, tmp_path
):
    settings = experiment(optimizer=optimizer, scheduler=scheduler, learning_rate=1e-2, n_epochs=12)
    whole = Optimization(tiny_model(), settings, steps_per_epoch=2)
    advance(whole, 5)
    path = save(tmp_path / "last", whole)
    weights = [parameter.detach().clone() for parameter in whole.parameters]
    expected_rates, expected = advance(whole, 7)
    resumed = restored(path, settings)
    with torch.no_grad():
        for parameter, saved in zip(resumed.parameters, weights, strict=True):
            parameter.copy_(saved)
    rates, found = advance(resumed, 7)
    assert rates == expected_rates
    assert len(set(rates)) > 1
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_the_state_of_a_training_passes_through_json_unchanged():
    for optimizer in ("adam", "adamw", "sgd"):
        for scheduler in ("plateau", "milestones", "one_cycle", "cosine"):
            settings = experiment(optimizer=optimizer, scheduler=scheduler)
            saved, own = (Optimization(tiny_model(), settings, steps_per_epoch=2) for _ in range(2))
            advance(saved, 2)
            stored = json.loads(json.dumps(saved.state()))
            own.load_state(make_state(**stored), saved.tensors())
            assert own.state() == saved.state()


def test_a_restored_state_lies_in_memory_as_its_parameter():
    model = tiny_model().to(memory_format=torch.channels_last)
    optimization = Optimization(model, experiment(), steps_per_epoch=2)
    advance(optimization, 1)
    saved = {name: tensor.contiguous() for name, tensor in optimization.tensors().items()}
    optimization.load_state(as_training(optimization), saved)
    for parameter, state in optimization.optimizer.state.items():
        assert state["exp_avg"].stride() == parameter.stride()
        assert state["exp_avg"].data_ptr() not in {t.data_ptr() for t in saved.values()}
    assert any(not parameter.is_contiguous() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "tensors"),
    [
        ({"param_groups": ()}, {}),
        ({"param_groups": ({"lr": 1.0},)}, {}),
        ({"scheduler": {"last_epoch": 1}}, {}),
        ({}, {"0.exp_avg": torch.zeros(2, 2)}),
        ({}, {"999.exp_avg": torch.zeros(2)}),
        ({}, {"-1.step": torch.zeros(())}),
        ({}, {"exp_avg": torch.zeros(2)}),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, tensors):
    optimization = Optimization(tiny_model(), experiment(), steps_per_epoch=1)
    state = dataclasses.replace(as_training(optimization), **change)
    with pytest.raises((KeyError, ValueError, TypeError)):
        optimization.load_state(state, tensors)


def test_a_state_of_another_device_keeps_the_kernel_of_this_one():
    saved, own = (Optimization(tiny_model(), experiment(), steps_per_epoch=1) for _ in range(2))
    state = as_training(saved)
    state.param_groups[0]["fused"] = True  # as on a GPU
    own.load_state(state, {})
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
    path = save_today(tmp_path / "last", first)
    second = Optimization(tiny_model(), experiment(), steps_per_epoch=1, scales_loss=True)
    training = load_checkpoint(path, "demo", resume=True).facts.training
    assert training is not None
    second.load_state(training, {})
    assert second.scaler.get_scale() == 2.0**7
