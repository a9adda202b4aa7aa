import copy

import numpy as np
import pytest
import torch

from src.checkpoints import Checkpoint, load_checkpoint
from src.optimization import Scheduler, make_optimizer
from tests.retinanet.test_model import tiny_model
from tests.test_engine import info


def test_adam_moves_all_parameters_without_weight_decay():
    model = tiny_model()
    optimizer = make_optimizer(model, info(learning_rate=1e-5))
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.Adam)
    assert (group["lr"], group["weight_decay"]) == (1e-5, 0)
    assert len(group["params"]) == len(list(model.parameters()))


def test_sgd_gives_each_part_the_second_places_rate():
    model = tiny_model()
    optimizer = make_optimizer(model, info(optimizer="sgd", learning_rate=0.01))
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
    rates = rates_of(info(learning_rate=1e-5), 10, losses)
    assert rates == pytest.approx([1e-5] * 8 + [2e-6] * 2)


def test_milestones_divide_the_rate_after_epochs_8_16_and_20():
    settings = info(scheduler="milestones", learning_rate=1.0)
    expected = [1.0] * 8 + [0.1] * 8 + [0.01] * 4 + [0.001] * 2
    assert rates_of(settings, 22) == pytest.approx(expected)


def test_one_cycle_rises_to_the_rate_and_falls_to_nothing():
    settings = info(scheduler="one_cycle", learning_rate=1e-2, n_epochs=20)
    rates = rates_of(settings, 20, steps_per_epoch=5)
    peak = int(np.argmax(rates))
    assert max(rates) == pytest.approx(1e-2, rel=0.01)
    assert rates[0] < 1e-3
    assert rates[-1] < 1e-3
    assert 4 <= peak <= 8
    assert rates[:peak] == sorted(rates[:peak])


@pytest.mark.parametrize("scheduler", ["plateau", "milestones", "one_cycle"])
def test_a_scheduler_goes_on_from_its_saved_state(scheduler, tmp_path):
    settings = info(scheduler=scheduler, learning_rate=1e-2, n_epochs=12)

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
