"""Which parameters decay, and how fast each layer learns."""

from typing import Any

import pytest
import timm
from timm.optim import param_groups_layer_decay

from src.experiments.experiment import Experiment
from src.experiments.networks import build_model
from src.training.optimizer import make_optimizer

FIELDS: dict[str, Any] = {
    "batch_size": 2,
    "img_size": 224,
    "pyramid_width": 16,
    "optimizer": "adamw",
    "learning_rate": 1e-2,
    "weight_decay": 0.05,
}


def groups_of(encoder, **settings):
    """Return the network's parameters by name, and the rate and decay of each."""
    experiment = Experiment(encoder=encoder, **(FIELDS | settings))
    model = build_model(experiment)
    optimizer = make_optimizer(model, experiment)
    told = {
        parameter: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    parameters = dict(model.named_parameters())
    assert len(told) == len(parameters)
    assert optimizer.param_groups[-1]["lr"] == 1e-2, "the rate that is shown is the heads'"
    return parameters, {name: told[parameter] for name, parameter in parameters.items()}


@pytest.mark.parametrize("encoder", ["resnet18", "timm/convnext_atto"])
def test_norms_and_biases_do_not_decay(encoder):
    parameters, told = groups_of(encoder)
    for name, parameter in parameters.items():
        assert told[name] == (1e-2, 0.05 if parameter.ndim > 1 else 0.0), name
        assert (told[name][1] == 0) == (name.endswith("bias") or parameter.ndim == 1)


@pytest.mark.parametrize(
    "model", ["vit_tiny_patch16_224", "swinv2_tiny_window8_256", "convnext_atto"]
)
def test_layers_of_an_encoder_learn_and_decay_as_timm_says(model):
    img_size = 256 if "256" in model else 224
    _, told = groups_of(f"timm/{model}", layer_decay=0.8, img_size=img_size)
    whole = timm.create_model(model)
    names = {value: name for name, value in whole.named_parameters()}
    groups = param_groups_layer_decay(
        whole, 0.05, layer_decay=0.8, no_weight_decay_list=getattr(whole, "no_weight_decay", set)()
    )
    expected = {
        names[value].replace(".", "_"): (1e-2 * group["lr_scale"], group["weight_decay"])
        for group in groups
        for value in group["params"]
    }
    found = {
        name.removeprefix("encoder.net.").removeprefix("model.").replace(".", "_"): rule
        for name, rule in told.items()
        if name.startswith("encoder.net.")
    }
    assert found
    assert found == {name: pytest.approx(expected[name]) for name in found}
    assert min(found.values())[0] < 1e-2 * 0.8**5


def test_what_is_not_the_encoders_own_learns_at_the_whole_rate():
    parameters, told = groups_of("timm/vit_tiny_patch16_224", layer_decay=0.5)
    new = [name for name in parameters if not name.startswith("encoder.net.")]
    assert "encoder.pyramid.to_stride_8.weight" in new
    assert {told[name][0] for name in new} == {1e-2}


def test_a_table_of_positions_does_not_decay():
    parameters, told = groups_of("timm/vit_tiny_patch16_224")
    name = "encoder.net.model.pos_embed"
    assert parameters[name].ndim > 1
    assert told[name] == (1e-2, 0.0)
