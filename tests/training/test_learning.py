import json
import math
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from src.retinanet.acceleration import Acceleration
from src.structures import LOSS_NAMES
from src.training.epoch import Stopped, train_epoch
from src.training.optimizer import Optimization, make_optimizer
from src.training.progress import Progress, history_row
from src.training.step import MAX_SKIPPED_IN_A_ROW, Learner, NonFiniteError, StepKey, seed_step
from tests.made_batches import CPU, ON_CPU, make_batches
from tests.retinanet.test_model import tiny_model
from tests.training.test_engine import experiment, flat_weights


def make_learner(
    model, *, settings=None, optimizer=None, n_batches=1, seed=0, clip_norm=1.0,
    acceleration=ON_CPU, **options,
):  # fmt: skip
    settings = replace(settings or experiment(), clip_norm=clip_norm)
    optimization = Optimization(
        model, settings, steps_per_epoch=n_batches, scales_loss=acceleration.precision == "fp16"
    )
    if optimizer is not None:
        optimization.optimizer = optimizer
    return Learner(
        model=model, optimization=optimization, acceleration=acceleration, seed=seed,
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
    settings = experiment(learning_rate=1e-2)
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


def test_accumulated_batches_make_the_step_of_one_large_batch():
    models = [tiny_model(dropout_class=0.0, dropout_global=0.0) for _ in range(2)]
    large, small = make_batches([3]), make_batches([2, 1])
    for model, batches, accumulate in zip(models, (large, small), (1, 2), strict=True):
        plain = torch.optim.SGD(model.parameters(), lr=1.0)
        train(model, batches, optimizer=plain, accumulate=accumulate)
    torch.testing.assert_close(flat_weights(models[0]), flat_weights(models[1]))


def test_the_losses_of_a_training_count_every_image_alike():
    models = [tiny_model(dropout_class=0.0, dropout_global=0.0) for _ in range(2)]
    still = [torch.optim.SGD(model.parameters(), lr=0.0) for model in models]
    means = [
        train(model, make_batches(sizes), optimizer=optimizer)
        for model, sizes, optimizer in zip(models, ([4], [3, 1]), still, strict=True)
    ]
    assert means[0] == pytest.approx(means[1], rel=1e-5)


def spoil(batch):
    batch.images[0, 0, 5, 5] = math.nan
    return batch


def test_a_gradient_that_is_not_finite_stops_before_the_weights_move():
    model, batches = tiny_model(), make_batches([2])
    model.pyramid.output[0].weight.register_hook(lambda gradient: gradient * math.inf)
    before = flat_weights(model)
    with pytest.raises(
        NonFiniteError, match=r"epoch 0, step 0: the gradient .*such as of .*patient-0"
    ):
        train(model, batches)
    assert torch.equal(flat_weights(model), before)


def test_weights_that_were_spoilt_before_are_named():
    model = tiny_model()
    with torch.no_grad():
        model.box_head.output.weight[0, 0, 0, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"weights were not finite before.* box_head\.output"):
        train(model, make_batches([2]))


def test_steps_that_are_not_finite_can_be_skipped_and_are_counted():
    models = [tiny_model(dropout_class=0.0, dropout_global=0.0) for _ in range(2)]
    good, bad = make_batches([2, 2])
    progress = Progress(epoch=0)
    learner = make_learner(models[0], n_batches=3, skips_non_finite=True)
    train_epoch(learner, [good, spoil(bad), good], progress)
    train(models[1], [good, good])
    assert (progress.n_skipped, progress.n_batches, progress.running.n_images) == (1, 3, 4)
    assert torch.equal(flat_weights(models[0]), flat_weights(models[1]))


def test_a_skipped_step_leaves_batch_norm_as_it_was():
    options = {"train_batch_norm": True, "dropout_class": 0.0, "dropout_global": 0.0}
    models = [tiny_model(**options) for _ in range(2)]
    good, bad = make_batches([2, 2])
    learner = make_learner(models[0], n_batches=3, skips_non_finite=True)
    train_epoch(learner, [good, spoil(bad), good], Progress(epoch=0))
    train(models[1], [good, good])
    expected = models[1].state_dict()
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_first_step_that_is_skipped_is_no_warning():
    good, bad = make_batches([2, 2])
    settings = experiment(scheduler="one_cycle")
    learner = make_learner(tiny_model(), settings=settings, n_batches=2, skips_non_finite=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_epoch(learner, [spoil(bad), good], Progress(epoch=0))


def test_skipping_ends_where_every_step_is_bad():
    (bad,) = make_batches([2])
    learner = make_learner(tiny_model(), n_batches=12, skips_non_finite=True)
    progress = Progress(epoch=0)
    with pytest.raises(NonFiniteError):
        train_epoch(learner, [spoil(bad)] * 12, progress)
    assert progress.n_skipped == MAX_SKIPPED_IN_A_ROW + 1


def test_a_wish_to_stop_is_granted_after_the_step():
    progress, batches = Progress(epoch=0), make_batches([2, 2, 2])
    with pytest.raises(Stopped):
        train_epoch(
            make_learner(tiny_model(), n_batches=3), batches, progress,
            wants_to_stop=lambda: progress.n_batches == 1,
        )  # fmt: skip
    assert progress.n_batches == 2


def test_an_epoch_counts_the_seconds_of_its_steps_and_how_long_they_waited(monkeypatch):
    clock = [0]

    def pass_seconds(n):
        clock[0] += n
        return False

    def slow(batches):
        for batch in batches:
            pass_seconds(3)
            yield batch

    monkeypatch.setattr("src.training.epoch.time", SimpleNamespace(monotonic=lambda: clock[0]))
    progress = Progress(epoch=0, n_batches=1, seconds=100, waited_seconds=10)
    train_epoch(
        make_learner(tiny_model(), n_batches=3, accumulate=2), slow(make_batches([2, 2, 2])),
        progress, wants_to_stop=lambda: pass_seconds(2), after_step=lambda: pass_seconds(50),
    )  # fmt: skip
    assert progress.waited_seconds == 10 + 3 * 3
    assert progress.seconds == 100 + 3 * 3 + 2 * 2  # in two steps


def test_an_epoch_adds_up_the_norms_of_its_gradients_before_they_are_clipped():
    model = tiny_model(dropout_class=0.0, dropout_global=0.0)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    batches = make_batches([2, 2])
    progress = Progress(epoch=0)
    learner = make_learner(model, optimizer=still, n_batches=2, clip_norm=0.01)
    train_epoch(learner, batches, progress)
    norms = []
    for batch in batches:
        alone = Progress(epoch=0)
        train_epoch(make_learner(model, optimizer=still, clip_norm=1e6), [batch], alone)
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        norms.append(gradient.norm().item())
        assert alone.norm_sum == pytest.approx(norms[-1], rel=1e-4)
    assert norms[0] > 0.1
    assert progress.norm_sum == pytest.approx(sum(norms), rel=1e-4)
    assert progress.n_norms == 2


def test_gradients_that_moved_nothing_do_not_count():
    good, bad = make_batches([2, 2])
    progress = Progress(epoch=0)
    learner = make_learner(tiny_model(), n_batches=2, skips_non_finite=True)
    train_epoch(learner, [good, spoil(bad)], progress)
    assert progress.n_norms == 1
    progress.add_norm(math.inf)  # as in half precision
    assert progress.n_norms == 1
    assert math.isfinite(progress.norm_sum)


@pytest.mark.parametrize(("n_batches", "is_known"), [(0, True), (5, False)])
def test_what_an_older_version_did_not_measure_is_not_known(n_batches, is_known):
    state = Progress(epoch=3, n_batches=n_batches).state_dict()
    older = {
        name: value for name, value in state.items()
        if name not in ("norm_sum", "n_norms", "seconds", "waited_seconds")
    }  # fmt: skip
    progress = Progress.from_state(older)
    progress.seconds += 2.0
    row = history_row(
        progress, dict.fromkeys(LOSS_NAMES, 0.0), valid_seconds=1.0, peak_memory=2_000_000
    )
    assert (row["seconds"] == 3.0) is is_known
    assert math.isnan(row["seconds"]) is not is_known
    assert math.isnan(row["waiting_share"]) is not is_known
    assert (row["valid_seconds"], row["peak_memory_mb"]) == (1.0, 2.0)


def test_progress_is_plain_numbers_and_comes_back():
    progress = Progress(
        epoch=3, n_batches=5, learning_rate=1e-4, n_skipped=2, seconds=1.5, waited_seconds=0.1
    )
    progress.running.add([0.1, 0.2, 0.3, 0.4], 7)
    progress.add_norm(0.3)
    again = Progress.from_state(json.loads(json.dumps(progress.state_dict())))
    assert again.state_dict() == progress.state_dict()
    assert again.running.means() == progress.running.means()


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")  # the first step overflows
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_like_fp32(precision):
    models = [tiny_model(dropout_class=0.0, dropout_global=0.0) for _ in range(2)]
    in_half = Acceleration(device=CPU, precision=precision)
    losses = [
        train(model, make_batches([2, 2]), acceleration=acceleration)
        for model, acceleration in zip(models, (ON_CPU, in_half), strict=True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]
    assert {parameter.dtype for parameter in models[1].parameters()} == {torch.float32}


def test_a_gradient_whose_norm_alone_overflows_is_named():
    model = tiny_model()
    weight = model.pyramid.output[0].weight
    weight.register_hook(lambda gradient: torch.full_like(gradient, 1e30))
    with pytest.raises(NonFiniteError, match="the gradient has a norm that overflows; patients"):
        train_epoch(make_learner(model), make_batches([2]), Progress(epoch=0))


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")  # no step is ever done
def test_fp16_does_not_look_for_a_smaller_scale_forever():
    model, (batch,) = tiny_model(), make_batches([2])
    model.pyramid.output[0].weight.register_hook(lambda gradient: gradient * math.inf)
    learner = make_learner(model, acceleration=Acceleration(device=CPU, precision="fp16"))
    progress = Progress(epoch=0)
    with pytest.raises(NonFiniteError, match="the gradient is not finite"):
        train_epoch(learner, [batch] * 40, progress)
    assert progress.n_batches == 26  # from a scale of 2^16 to 2^-10
