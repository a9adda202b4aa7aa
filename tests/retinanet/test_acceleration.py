import copy
from functools import partialmethod

import pytest
import torch
from torch import nn

from src.experiments.networks import build_model
from src.experiments.table import EXPERIMENTS
from src.retinanet.acceleration import (
    Acceleration,
    choose_device,
    choose_precision,
    fold_batch_norm,
    recompute_blocks,
)
from src.retinanet.encoders import build_encoder
from src.retinanet.ensemble import Ensemble
from src.system.errors import InputError
from tests.made_batches import CPU
from tests.retinanet.test_model import tiny_model


def test_choose_device_takes_what_is_there():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "", "tpu", "cuda:x"])
def test_choose_device_refuses_what_is_not_there(name):
    with pytest.raises(InputError, match="--device"):
        choose_device(name)


def test_choose_precision_is_fp32_on_a_cpu_unless_asked():
    assert choose_precision(None, CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"
    with pytest.raises(InputError, match="--precision fp16: needs a GPU"):
        choose_precision("fp16", CPU)


def test_choose_precision_refuses_bf16_that_would_be_emulated(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert choose_precision(None, torch.device("cuda")) == "fp32"
    with pytest.raises(InputError, match="--precision bf16: this GPU"):
        choose_precision("bf16", torch.device("cuda"))


def test_a_numbered_gpu_becomes_the_one_that_is_meant_by_default(monkeypatch):
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # as if it were there
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("cuda:1", "cuda", "cpu"):
        choose_device(name)
    assert chosen == [torch.device("cuda:1")]


def with_real_statistics(encoder):
    """Give batch norm statistics that differ from 0 and 1."""
    torch.manual_seed(0)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return encoder.eval()


@torch.no_grad()
@pytest.mark.parametrize(("name", "n_left"), [("se_resnext50", 0), ("timm/regnetx_002", 0)])
def test_folded_batch_norm_changes_nothing(name, n_left):
    encoder = with_real_statistics(build_encoder(name))
    images = torch.rand(1, 3, 192, 192)
    folded = fold_batch_norm(encoder)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == n_left
    for ours, expected in zip(folded(images), encoder(images), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_an_encoder_that_cannot_be_traced_stays_as_it_is():
    encoder = build_encoder("nasnet_mobile").eval()
    assert fold_batch_norm(encoder) is encoder


@pytest.mark.parametrize("name", ["resnet18", "se_resnext50", "timm/convnext_tiny"])
def test_recomputed_blocks_give_the_same_gradients_and_keep_the_names(name):
    torch.manual_seed(0)
    plain = build_encoder(name).eval()
    saving = copy.deepcopy(plain)
    recompute_blocks(saving)
    images = torch.rand(1, 3, 64, 64)
    kept = []
    for encoder in (plain, saving):
        n_kept = 0

        def count(tensor):
            nonlocal n_kept
            n_kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            total = sum(feature.square().mean() for feature in encoder(images))
        total.backward()
        kept.append(n_kept)
    assert kept[1] < 0.5 * kept[0]
    assert list(plain.state_dict()) == list(saving.state_dict())
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad)


def test_recomputing_is_refused_where_batch_norm_would_count_twice():
    model = tiny_model(train_batch_norm=True)
    with pytest.raises(InputError, match="--checkpoint-encoder"):
        Acceleration(device=CPU, recomputes_encoder=True).place_for_training(model)


@torch.no_grad()
def test_a_network_that_cannot_be_compiled_is_one_line(monkeypatch):
    def fail(*_):
        raise RuntimeError("No working C++ compiler found\nin many lines")

    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=fail))
    model, acceleration = tiny_model(), Acceleration(device=CPU, compiles=True)
    acceleration.place_for_inference(model)
    with pytest.raises(InputError) as caught, acceleration.arithmetic():
        model(torch.rand(1, 1, 192, 192))
    message = str(caught.value)
    assert message.startswith("--compile: PyTorch cannot compile the network here: No working C++")
    assert "CXX" in message
    assert len(message.splitlines()) == 1


def test_a_compiled_network_says_the_same(monkeypatch):
    plain = build_model(EXPERIMENTS["demo"]).eval()
    compiled = copy.deepcopy(plain)
    monkeypatch.setattr(torch._dynamo.config, "suppress_errors", False)
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    Acceleration(device=CPU, compiles=True).place_for_inference(compiled)
    images = torch.rand(1, 1, 192, 192)
    for ours, expected in zip(compiled(images), plain(images), strict=True):
        torch.testing.assert_close(ours, expected)
    assert list(compiled.state_dict()) == list(plain.state_dict())


def test_an_ensemble_is_placed_by_its_members():
    ensemble = Ensemble([tiny_model(), tiny_model()]).train()
    Acceleration(device=CPU).place_for_inference(ensemble)
    assert not any(module.training for module in ensemble.modules())
