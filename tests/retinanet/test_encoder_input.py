"""What an encoder takes: normalised as its weights were trained, in three channels or in one."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from src.retinanet.encoders import ENCODERS, build_encoder, family_of, weights
from src.retinanet.encoders.weights import WeightsError, load_encoder_weights
from src.retinanet.settings import IMAGENET, INCEPTION
from src.system.errors import InputError
from tests.retinanet.test_encoder_weights import OLD_SETTINGS, TIMM_NAMES, old_module, scrambled

OF_ONE_STEM = ("timm/convnext_atto", "timm/regnetx_002", "timm/vit_tiny_patch16_224")
OF_TWO_STEMS = "timm/repvgg_a0"  # two convolutions take the images


def normalisation_of(name):
    return family_of(name).normalisation(name)


def assert_normalises_by(name, mean, deviation):
    found = normalisation_of(name)
    broadcast = torch.broadcast_to(torch.tensor(found.deviation), (3,))
    torch.testing.assert_close(torch.tensor(found.mean), torch.tensor(mean))
    torch.testing.assert_close(broadcast, torch.tensor(deviation))


@pytest.mark.parametrize("name", OLD_SETTINGS)
def test_an_encoder_is_normalised_as_pretrainedmodels_says(name):
    module, model, version = OLD_SETTINGS[name]
    settings = old_module(module).pretrained_settings[model][version]
    assert_normalises_by(name, settings["mean"], settings["std"])


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_an_encoder_is_normalised_as_timm_says_of_the_same_weights(name):
    settings = timm.models.get_pretrained_cfg(TIMM_NAMES[name])
    assert_normalises_by(name, settings.mean, settings.std)


def test_a_network_of_timm_is_normalised_as_its_own_weights_were():
    assert normalisation_of("timm/convnext_tiny") == IMAGENET
    assert normalisation_of("timm/tf_efficientnet_lite0") == INCEPTION
    assert normalisation_of("timm/vit_base_patch16_clip_224.openai").mean[0] == 0.48145466


def test_a_network_without_settings_has_no_normalisation_of_its_own(monkeypatch):
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda name: None)
    with pytest.raises(InputError, match=r"no normalisation of timm/convnext_atto; .* state"):
        normalisation_of("timm/convnext_atto")


def test_the_normalisation_of_one_channel_is_the_mean_over_three():
    one = IMAGENET.of_one_channel()
    assert one.mean == pytest.approx((0.449,))
    assert one.deviation == pytest.approx((0.226,))


# One channel


@torch.no_grad()
def assert_same_maps(one, three):
    images = torch.rand(1, 1, 64, 64)
    for ours, expected in zip(
        one.eval()(images), three.eval()(images.expand(-1, 3, -1, -1)), strict=True
    ):
        scale = float(expected.abs().max())
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_of_one_channel_gives_the_maps_of_three_equal_ones(name):
    torch.manual_seed(0)
    three = build_encoder(name)
    torch.manual_seed(0)
    one = build_encoder(name, in_channels=1)
    assert (three.in_channels, one.in_channels) == (3, 1)
    assert_same_maps(one, three)


@pytest.mark.parametrize("name", ["resnet18", "se_resnext50", "xception", "dpn92", "nasnet_mobile"])
def test_weights_for_three_channels_are_summed_for_one(name, monkeypatch):
    state = scrambled(build_encoder(name))
    monkeypatch.setattr(weights, "_read_tensors", lambda path, inside: dict(state))
    encoders = [build_encoder(name, in_channels=n) for n in (1, 3)]
    for encoder in encoders:
        load_encoder_weights(encoder, name, Path("file.pth"))
    assert_same_maps(*encoders)


@pytest.mark.parametrize("name", [*OF_ONE_STEM, OF_TWO_STEMS])
def test_timms_weights_for_three_channels_are_summed_for_one(name, monkeypatch):
    state = scrambled(timm.create_model(name.removeprefix("timm/")))
    monkeypatch.setattr(weights, "_read_tensors", lambda path, inside: dict(state))
    encoders = [build_encoder(name, img_size=64, in_channels=n) for n in (1, 3)]
    for encoder in encoders:
        load_encoder_weights(encoder, name, Path("file.safetensors"))
    pyramids = [encoder.pyramid for encoder in encoders]
    if isinstance(pyramids[0], nn.Module) and isinstance(pyramids[1], nn.Module):
        pyramids[0].load_state_dict(pyramids[1].state_dict())  # ours, with random weights
    assert_same_maps(*encoders)


@pytest.mark.parametrize("name", ["resnet18", "timm/convnext_atto"])
def test_native_weights_of_one_channel_are_taken_as_they_are(name, monkeypatch):
    one = build_encoder(name, in_channels=1)
    with torch.no_grad():
        for weight in one.parameters():
            nn.init.normal_(weight, std=0.05)
    state = {key.removeprefix("net."): tensor for key, tensor in one.state_dict().items()}
    if name != "resnet18":
        whole = timm.create_model(name.removeprefix("timm/"), in_chans=1).state_dict()
        names = {key.replace(".", "_"): key for key in whole}
        state = whole | {names[key.replace(".", "_")]: tensor for key, tensor in state.items()}
    monkeypatch.setattr(weights, "_read_tensors", lambda path, inside: dict(state))
    loaded = build_encoder(name, in_channels=1)
    load_encoder_weights(loaded, name, Path("native.pth"))
    expected = one.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.state_dict().items())


def test_weights_of_one_channel_are_no_weights_for_three(monkeypatch):
    state = build_encoder("resnet18", in_channels=1).state_dict()
    monkeypatch.setattr(weights, "_read_tensors", lambda path, inside: dict(state))
    with pytest.raises(WeightsError, match=r"conv1\.weight \(64, 1, 7, 7\) instead of"):
        load_encoder_weights(build_encoder("resnet18"), "resnet18", Path("native.pth"))
