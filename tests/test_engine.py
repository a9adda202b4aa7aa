import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from src.checkpoints import Checkpoint, load_checkpoint
from src.engine import (
    LOSS_NAMES,
    RunningLosses,
    Scheduler,
    StepKey,
    choose_device,
    make_optimizer,
    predict,
    seed_step,
    train_epoch,
    validate,
)
from src.errors import InputError
from src.models import ModelInfo
from src.predictions import ARRAYS
from src.retinanet.losses import detection_losses
from src.structures import Batch, Losses, Target
from tests.retinanet.test_model import tiny_model

CPU = torch.device("cpu")
HEADER = {"img_size": 192, "model": "tiny"}


def info(**settings):
    return replace(ModelInfo(encoder="tiny", batch_size=2, learning_rate=1e-3), **settings)


def make_batches(sizes, seed=0):
    """Batches of so many random images; every second image has a box."""
    generator, batches, n = torch.Generator().manual_seed(seed), [], 0
    for size in sizes:
        targets, ids = [], []
        for _ in range(size):
            box = torch.tensor([[30.0, 40.0, 100.0, 120.0 + n]])
            targets.append(Target(box, 2) if n % 2 == 0 else Target(torch.zeros(0, 4), n % 4 // 2))
            ids.append(f"patient-{n}")
            n += 1
        images = torch.rand(size, 1, 192, 192, generator=generator)
        file_sizes = tuple((1024, 1024 + i) for i in range(size))
        batches.append(Batch(images, tuple(targets), tuple(ids), file_sizes))
    return batches


def model_that_finds():
    """A tiny network whose scores differ and pass the candidates' limit here and there."""
    model = tiny_model(levels=(4, 5, 6, 7))
    torch.manual_seed(1)
    nn.init.normal_(model.class_head.output.weight, std=0.5)
    nn.init.constant_(model.class_head.output.bias, -2.0)
    nn.init.normal_(model.box_head.output.weight, std=0.1)
    return model


def train(model, batches, *, settings=None, optimizer=None, seed=0, epoch=0, clip_norm=1.0):
    settings = settings or info()
    optimizer = optimizer or make_optimizer(model, settings)
    scheduler = Scheduler(optimizer, settings, len(batches))
    return train_epoch(
        model, batches, optimizer, scheduler,
        clip_norm=clip_norm, device=CPU, seed=seed, epoch=epoch,
    )  # fmt: skip


def flat_weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


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


def test_running_losses_are_means_over_images():
    running = RunningLosses()
    running.add(Losses(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)), 4)
    running.add(Losses(torch.tensor(6.0), torch.tensor(7.0), torch.tensor(8.0)), 1)
    assert running.means() == pytest.approx(
        {"classification": 2.0, "regression": 3.0, "global_classification": 4.0,
         "loss": 2.0 + 3.0 + 0.1 * 4.0}
    )  # fmt: skip
    assert str(running) == "loss 5.4000 cls 2.0000 reg 3.0000 glob 4.0000"


def test_running_losses_of_nothing_are_zero():
    assert set(RunningLosses().means().values()) == {0.0}


def test_train_epoch_lowers_the_loss():
    model, batches = tiny_model(train_batch_norm=True), make_batches([4])
    settings = info(learning_rate=1e-2)
    optimizer = make_optimizer(model, settings)
    losses = [train(model, batches, optimizer=optimizer)["loss"] for _ in range(8)]
    assert losses[-1] < 0.8 * losses[0]


def test_validate_scores_every_image_of_every_batch():
    model, batches = model_that_finds(), make_batches([2, 2, 1])
    losses, predictions = validate(model, batches, device=CPU, header=HEADER)
    assert predictions.ids.tolist() == [f"patient-{i}" for i in range(5)]
    assert (np.diff(predictions.offsets) > 0).all()
    assert np.diff(predictions.true_offsets).tolist() == [1, 0, 1, 0, 1]
    assert predictions.true_boxes_xyxy[:, 3].tolist() == [120, 122, 124]
    assert predictions.true_categories.tolist() == [2, 0, 2, 1, 2]
    assert predictions.image_sizes.tolist() == [[1024, 1024], [1024, 1025]] * 2 + [[1024, 1024]]
    assert predictions.header == HEADER
    assert set(losses) == set(LOSS_NAMES)


def test_validate_gives_what_single_images_give():
    model, batches = model_that_finds(), make_batches([2, 2, 1])
    losses, predictions = validate(model, batches, device=CPU, header=HEADER)
    singles = []
    for image in range(5):
        batch = make_batches([2, 2, 1])[image // 2]
        place = slice(image % 2, image % 2 + 1)
        single = Batch(
            batch.images[place], batch.targets[place], batch.ids[place], batch.file_sizes[place]
        )
        with torch.inference_mode():
            outputs = model(single.images)
            singles.append(detection_losses(outputs, model.anchors(single.images), single.targets))
        _, alone = validate(model, [single], device=CPU, header=HEADER)
        rows = predictions.candidates_of(image)
        np.testing.assert_allclose(predictions.boxes_xyxy[rows], alone.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(predictions.scores[rows], alone.scores, atol=1e-5)
        np.testing.assert_allclose(predictions.class_probs[image], alone.class_probs[0], atol=1e-5)
    for name in LOSS_NAMES[1:]:
        mean = np.mean([getattr(single, name).item() for single in singles])
        assert losses[name] == pytest.approx(mean, rel=1e-4)


def test_validate_switches_dropout_off_and_leaves_the_weights_alone():
    model, batches = model_that_finds().train(), make_batches([2])
    before = flat_weights(model)
    first, _ = validate(model, batches, device=CPU, header=HEADER)
    second, _ = validate(model, batches, device=CPU, header=HEADER)
    assert first == second
    assert torch.equal(before, flat_weights(model))


def test_predict_finds_what_validate_finds():
    model, batches = model_that_finds(), make_batches([2, 1])
    _, validated = validate(model, batches, device=CPU, header=HEADER)
    predicted = predict(model, batches, device=CPU, header=HEADER)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(predicted, name), getattr(validated, name))


def test_predict_takes_images_without_labels_and_no_images():
    batch = make_batches([2])[0]
    unknown = tuple(Target(torch.zeros(0, 4), -1) for _ in batch.ids)
    unlabelled = Batch(batch.images, unknown, batch.ids, batch.file_sizes)
    predictions = predict(model_that_finds(), [unlabelled], device=CPU, header=HEADER)
    assert not predictions.has_truth
    assert len(predict(model_that_finds(), [], device=CPU, header=HEADER)) == 0


def test_predictions_of_the_engine_can_be_saved(tmp_path):
    from src.predictions import load_predictions

    predict(model_that_finds(), make_batches([2, 1]), device=CPU, header=HEADER).save(
        tmp_path / "000.npz"
    )
    assert len(load_predictions(tmp_path / "000.npz")) == 3


def test_a_loss_that_is_not_finite_stops_before_the_weights_move():
    model, batches = tiny_model(), make_batches([2, 2])
    batches[1].images[0, 0, 5, 5] = math.nan
    healthy = tiny_model()
    settings = info()
    with pytest.raises(InputError, match=r"epoch 3, step 1: .*patient-2, patient-3"):
        train(model, batches, epoch=3)
    train_epoch(
        healthy, batches[:1], make_optimizer(healthy, settings),
        Scheduler(make_optimizer(tiny_model(), settings), settings, 2),
        clip_norm=1.0, device=CPU, seed=0, epoch=3,
    )  # fmt: skip
    assert torch.equal(flat_weights(model), flat_weights(healthy))


@pytest.mark.parametrize("clip_norm", [0.05, 0.2])
def test_the_gradient_is_clipped(clip_norm):
    model = tiny_model()
    before = flat_weights(model)
    plain = torch.optim.SGD(model.parameters(), lr=1.0)
    train(model, make_batches([2]), optimizer=plain, clip_norm=clip_norm)
    assert (flat_weights(model) - before).norm().item() == pytest.approx(clip_norm, rel=1e-3)


def test_choose_device_takes_what_is_there():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "", "tpu", "cuda:x"])
def test_choose_device_refuses_what_is_not_there(name):
    with pytest.raises(InputError, match="--device"):
        choose_device(name)
