"""The average of the weights: its formula, its place in the network, its file."""

import pytest
import torch

from src.experiments.checkpoints import load_checkpoint
from src.training.average import WeightAverage
from src.training.epoch import train_epoch
from src.training.optimizer import Optimization
from src.training.progress import Progress
from tests.made_batches import make_batches
from tests.made_checkpoints import make_checkpoint, make_state
from tests.retinanet.test_model import tiny_model
from tests.training.test_engine import experiment
from tests.training.test_learning import make_learner


def move(model):
    """Change every number of a network's state."""
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(torch.randn_like(value) if value.is_floating_point() else 1)


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def averaged(n_steps, decay, model=None):
    """Return a network and its average after some steps."""
    model = model or tiny_model()
    average = WeightAverage(model, decay)
    for _ in range(n_steps):
        move(model)
        average.update()
    return model, average


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.999])
def test_the_average_follows_its_formula(decay):
    model = tiny_model()
    average = WeightAverage(model, decay)
    expected: dict[str, torch.Tensor] = {}
    for step in range(30):
        move(model)
        average.update()
        kept = min(decay, (1 + step) / (10 + step)) if step else 0.0
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                former = expected.get(name, torch.zeros(()))
                expected[name] = kept * former + (1 - kept) * value.double()
    assert average.n_steps == 30
    assert average.values.keys() == expected.keys()
    for name, value in average.values.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-5)


def test_statistics_of_batch_norm_are_averaged_and_counters_are_not():
    _, average = averaged(2, 0.9)
    assert "encoder.norm.running_mean" in average.values
    assert "encoder.norm.running_var" in average.values
    assert "encoder.norm.num_batches_tracked" not in average.values


def test_the_network_holds_the_average_in_the_block_alone():
    model, average = averaged(3, 0.9)
    own, kept = state_of(model), {name: value.clone() for name, value in average.values.items()}
    with pytest.raises(KeyError), average.in_place():
        assert_equal({name: value for name, value in state_of(model).items() if name in kept}, kept)
        raise KeyError
    assert_equal(state_of(model), own)
    assert_equal(average.values, kept)


def test_before_the_first_step_the_network_keeps_its_weights():
    model, average = averaged(0, 0.9)
    before = state_of(model)
    with average.in_place():
        assert_equal(state_of(model), before)


def test_the_average_lies_in_memory_as_the_weights():
    model, average = averaged(2, 0.9, tiny_model().to(memory_format=torch.channels_last))
    weights = model.state_dict()
    assert all(value.stride() == weights[name].stride() for name, value in average.values.items())
    _, other = averaged(0, 0.9, model)
    other.load(2, {name: value.contiguous() for name, value in average.values.items()})
    assert all(value.stride() == weights[name].stride() for name, value in other.values.items())


SETTINGS = experiment(ema_decay=0.99, learning_rate=1e-2)


def test_the_average_goes_on_from_a_file_bit_for_bit(tmp_path):
    path = tmp_path / "last.safetensors"
    models = [tiny_model(), tiny_model()]
    whole, resumed = (Optimization(model, SETTINGS, steps_per_epoch=2) for model in models)
    assert whole.average is not None
    assert resumed.average is not None
    for _ in range(3):
        move(models[0])
        whole.average.update()
    state = make_state(**whole.state())
    make_checkpoint(training=state, optimizer=whole.tensors()).save(path)
    checkpoint = load_checkpoint(path, "demo", resume=True)
    assert checkpoint.facts.training is not None
    resumed.load_state(checkpoint.facts.training, checkpoint.optimizer)
    models[1].load_state_dict(models[0].state_dict())
    for model, average in zip(models, (whole.average, resumed.average), strict=True):
        torch.manual_seed(0)
        move(model)
        average.update()
    assert_equal(resumed.average.values, whole.average.values)
    assert resumed.average.n_steps == 4


@pytest.mark.parametrize(
    ("n_steps", "change"),
    [
        (0, {}),
        (-1, {}),
        (2, {"encoder.norm.weight": None}),
        (2, {"other": torch.zeros(1)}),
        (2, {"encoder.norm.weight": torch.zeros(3)}),
    ],
)
def test_an_average_of_other_weights_is_refused(n_steps, change):
    model, average = averaged(2, 0.9)
    values = {name: value for name, value in (average.values | change).items() if value is not None}
    other = WeightAverage(model, 0.9)
    with pytest.raises(ValueError, match=r"of other weights|of shape"):
        other.load(n_steps, values)
    assert not other.values


def test_the_average_takes_in_each_step_not_each_batch():
    learner = make_learner(tiny_model(), settings=SETTINGS, accumulate=2)
    train_epoch(learner, make_batches([2, 2, 2]), Progress(epoch=0), shows_progress=False)
    assert learner.optimization.average is not None
    assert learner.optimization.average.n_steps == 2


def test_a_step_that_is_left_out_is_not_in_the_average():
    learner = make_learner(tiny_model(), settings=SETTINGS, skips_non_finite=True)
    good, bad = make_batches([2, 2])
    bad.images.fill_(torch.nan)
    train_epoch(learner, [good, bad], Progress(epoch=0), shows_progress=False)
    assert learner.optimization.average is not None
    assert learner.optimization.average.n_steps == 1


def test_no_average_is_kept_by_default():
    optimization = Optimization(tiny_model(), experiment(), steps_per_epoch=1)
    assert optimization.average is None
    assert not [name for name in optimization.tensors() if name.startswith("average.")]
    assert optimization.state()["n_averaged"] == 0
