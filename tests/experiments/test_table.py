from dataclasses import replace

import pytest
import torch
from torch import nn

from src.datasets.sample_options import AUGMENTATION_LEVELS
from src.experiments.checkpoints import load_checkpoint
from src.experiments.experiment import Experiment
from src.experiments.networks import build_empty_model, build_model, load_network
from src.experiments.table import EXPERIMENTS, MODERN, SECOND_PLACE, SMALL, get_experiment
from src.retinanet.encoders import ENCODERS
from src.system.errors import InputError
from src.training.optimizer import make_optimizer
from tests.made_checkpoints import as_version_1, make_checkpoint

# name: encoder, img_size, batch_size, augmentation level of the original release's table
ORIGINAL = {
    "resnet101_512": ("resnet101", 512, 6, 20),
    "resnet152_512": ("resnet152", 512, 4, 20),
    "se_resnext101_512": ("se_resnext101", 512, 3, 10),
    "se_resnext101_dr_512": ("se_resnext101", 512, 4, 20),
    "se_resnext101_dr0.75_512": ("se_resnext101", 512, 6, 20),
    "se_resnext101_dr0.75_512_aug1": ("se_resnext101", 512, 6, 1),
    "se_resnext101_dr0.75_512_aug10": ("se_resnext101", 512, 6, 10),
    "se_resnext101_dr0.75_512_basic_rotations": ("se_resnext101", 512, 6, 10),
    "se_resnext101_dr0.75_512_aug21": ("se_resnext101", 512, 6, 21),
    "se_resnext101_dr_512_without_pretrained": ("se_resnext101", 512, 4, 20),
    "se_resnext101_512_bs12": ("se_resnext101", 512, 12, 10),
    "se_resnext101_512_bs12_aug20": ("se_resnext101", 512, 12, 20),
    "se_resnext101_512_sgd": ("se_resnext101", 512, 4, 15),
    "se_resnext101_256": ("se_resnext101", 256, 12, 10),
    "resnet34_256": ("resnet34", 256, 32, 10),
    "resnet50_512": ("resnet50", 512, 12, 15),
    "se_resnext50_512": ("se_resnext50", 512, 8, 20),
    "se_resnext50_512_dr0.8": ("se_resnext50", 512, 8, 20),
    "pnas_512": ("pnasnet5large", 512, 4, 10),
    "pnas_512_dr": ("pnasnet5large", 512, 2, 20),
    "pnas_512_bs12": ("pnasnet5large", 512, 8, 10),
    "pnas_256_aug20": ("pnasnet5large", 256, 8, 20),
    "inc_resnet_v2_512": ("inceptionresnetv2", 512, 4, 20),
    "inc_resnet_v2_512_dr": ("inceptionresnetv2", 512, 4, 20),
    "inc_resnet_v2_256": ("inceptionresnetv2", 256, 16, 20),
    "nasnet_mobile_512": ("nasnet_mobile", 512, 8, 20),
    "xception_512_dr": ("xception", 512, 6, 20),
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_an_experiment_has_the_settings_of_the_original_table(name):
    experiment = EXPERIMENTS[name]
    found = (
        experiment.encoder,
        experiment.img_size,
        experiment.batch_size,
        experiment.augmentation_level,
    )
    assert found == ORIGINAL[name]


@pytest.mark.parametrize("name", [name for name in ORIGINAL if name != "se_resnext101_512_sgd"])
def test_an_original_experiment_trains_as_the_paper_does(name):
    experiment = EXPERIMENTS[name]
    assert (experiment.optimizer, experiment.learning_rate, experiment.scheduler) == (
        "adam",
        1e-5,
        "plateau",
    )
    assert experiment.clip_norm == 0.05
    assert (experiment.pyramid_levels, experiment.pyramid_width, experiment.head_depth) == (
        (2, 3, 4, 5, 6, 7),
        256,
        4,
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_can_be_built_from_known_parts(name):
    experiment = EXPERIMENTS[name]
    assert experiment.encoder in ENCODERS or experiment.encoder.startswith("timm/")
    assert experiment.augmentation_level in AUGMENTATION_LEVELS
    assert experiment.img_size >= 192
    assert experiment.img_size % 32 == 0


@pytest.mark.parametrize(
    "name", [name for name in EXPERIMENTS if EXPERIMENTS[name].batch_norm == "auto"]
)
def test_batch_norm_is_trained_exactly_where_nothing_is_pretrained(name):
    assert EXPERIMENTS[name].trains_batch_norm is not EXPERIMENTS[name].pretrained


@pytest.mark.parametrize(
    ("batch_norm", "pretrained", "trained"),
    [("auto", True, False), ("auto", False, True), ("frozen", False, False), ("train", True, True)],
)
def test_batch_norm_can_be_chosen(batch_norm, pretrained, trained):
    experiment = replace(EXPERIMENTS["resnet50_512"], batch_norm=batch_norm, pretrained=pretrained)
    assert experiment.trains_batch_norm is trained


def test_effective_dropouts_are_stated():
    dropouts = {
        name: (experiment.dropout_class, experiment.dropout_global)
        for name, experiment in EXPERIMENTS.items()
    }
    assert dropouts["se_resnext101_dr0.75_512"] == (0.75, 0.75)
    assert dropouts["se_resnext50_512_dr0.8"] == (0.8, 0.8)
    assert dropouts["se_resnext101_512"] == (0.5, 0.5)
    assert dropouts["resnet34_256"] == (0.5, 0.5)


def test_basic_rotations_turns_corners():
    assert {
        name for name, experiment in EXPERIMENTS.items() if experiment.box_points == "corners"
    } == {"se_resnext101_dr0.75_512_basic_rotations"}


def test_the_sgd_experiment_uses_sgd():
    experiment = EXPERIMENTS["se_resnext101_512_sgd"]
    assert (experiment.optimizer, experiment.scheduler) == ("sgd", "milestones")


@pytest.mark.parametrize("name", [*ORIGINAL, *SECOND_PLACE])
def test_a_former_experiment_has_nothing_of_todays_recipe(name):
    experiment = EXPERIMENTS[name]
    assert (experiment.normalisation, experiment.input_channels) == ("none", 3)
    assert experiment.optimizer != "adamw"
    assert (experiment.weight_decay, experiment.layer_decay) == (0, 1)
    assert (experiment.warmup_share, experiment.ema_decay) == (0, 0)


@pytest.mark.parametrize("name", MODERN)
def test_a_recent_encoder_is_trained_by_its_recipe(name):
    experiment = EXPERIMENTS[name]
    assert (experiment.optimizer, experiment.scheduler) == ("adamw", "cosine")
    assert experiment.normalisation == "encoder"
    assert experiment.weight_decay > 0
    assert experiment.ema_decay > 0.9
    is_transformer_or_alike = name in ("convnext_tiny_512", "swinv2_tiny_512")
    assert (experiment.layer_decay < 1) == is_transformer_or_alike


@pytest.mark.parametrize("name", ["lite0_256", "lite0_384"])
def test_an_experiment_with_installed_weights_uses_them_as_they_were_trained(name):
    experiment = EXPERIMENTS[name]
    assert experiment.encoder == "timm/tf_efficientnet_lite0"
    assert experiment.pretrained
    assert experiment.normalisation == "encoder"
    assert name.endswith(str(experiment.img_size))


@pytest.mark.parametrize("name", ["demo", "resnet18_256_scratch"])
def test_a_small_experiment_learns_from_scratch(name):
    experiment = EXPERIMENTS[name]
    assert (experiment.pretrained, experiment.scheduler, experiment.trains_batch_norm) == (
        False,
        "one_cycle",
        True,
    )
    assert experiment.learning_rate >= 1e-3


def test_an_unknown_experiment_suggests_near_names():
    with pytest.raises(InputError, match="did you mean resnet50_512"):
        get_experiment("resnet50-512")
    with pytest.raises(InputError, match="--list-models"):
        get_experiment("zzz")


def test_any_network_of_timm_is_an_experiment():
    experiment = get_experiment("timm/resnet10t")
    assert (experiment.encoder, experiment.optimizer) == ("timm/resnet10t", "adam")


def test_an_experiment_cannot_be_changed():
    with pytest.raises(AttributeError):
        EXPERIMENTS["demo"].batch_size = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Experiment("resnet18", batch_size=2)  # type: ignore[call-arg]


def test_build_model_follows_the_settings():
    experiment = replace(
        EXPERIMENTS["demo"],
        pyramid_width=16,
        head_depth=1,
        dropout_class=0.3,
        dropout_global=0.6,
    )
    model = build_model(experiment)
    assert model.levels == (3, 4, 5, 6, 7)
    assert model.train_batch_norm
    assert model.class_head.output.in_channels == 16
    assert model.class_head.dropout.p == 0.3
    assert model.global_head.dropout.p == 0.6
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in model.box_head.layers) == 1


@pytest.mark.parametrize("name", ["demo", "se_resnext50_512", "swinv2_tiny_512"])
def test_a_network_around_loaded_weights_is_the_network_that_was_saved(name, tmp_path):
    experiment, path = EXPERIMENTS[name], tmp_path / "000.safetensors"
    torch.manual_seed(0)
    saved = build_model(experiment).eval()
    make_checkpoint(saved.state_dict(), experiment=name, settings=experiment).save(path)
    loaded = load_network(load_checkpoint(path, name), path).eval()
    for part in ("named_parameters", "named_buffers"):
        ours, expected = (dict(getattr(model, part)()) for model in (loaded, saved))
        assert list(ours) == list(expected)
        assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_weights_of_an_older_version_were_trained_on_subsampled_images(tmp_path):
    experiment, path = EXPERIMENTS["demo"], tmp_path / "000.pt"
    formerly = replace(experiment, grey="range", reduction="subsample")
    content = as_version_1(make_checkpoint(build_model(experiment).state_dict()))
    del content["settings"]["grey"], content["settings"]["reduction"]
    torch.save(content, path)
    saved = load_checkpoint(path)
    assert saved.facts.settings == formerly
    load_network(saved, path)


def test_building_an_empty_model_leaves_initialisation_as_it_was():
    drawn = torch.nn.init.kaiming_normal_
    with pytest.raises(InputError):
        build_empty_model(replace(EXPERIMENTS["demo"], encoder="timm/none"))
    assert torch.nn.init.kaiming_normal_ is drawn
    assert build_model(EXPERIMENTS["demo"]).pyramid.output[0].weight.std() > 0.01  # type: ignore[operator]


@pytest.mark.parametrize("name", [name for name in SMALL if not SMALL[name].pretrained])
def test_a_step_moves_the_first_layer_by_less_than_its_statistics_follow(name):
    torch.manual_seed(0)
    network = build_model(SMALL[name]).train()
    optimizer = make_optimizer(network, SMALL[name])
    images = (0.5 + 0.25 * torch.randn(4, 1, 24, 24)).clamp(0, 1)
    images = images.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    seen = []
    first = next(part for part in network.modules() if isinstance(part, nn.BatchNorm2d))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    outputs = network(images)
    (outputs.scores.sum() + outputs.class_log_probs.sum()).backward()
    optimizer.step()
    network(images)
    before, after = (each.mean(dim=(0, 2, 3)) for each in seen)
    moved = (after - before).abs() / seen[0].std(dim=(0, 2, 3))
    assert moved.max() < 0.1
