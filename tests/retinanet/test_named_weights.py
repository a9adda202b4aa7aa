"""Weights that an experiment names: made-up files of the exact keys and shapes find their place."""

import re
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from src.retinanet.encoders import build_encoder, eva_x
from src.retinanet.encoders.named_weights import NAMED_WEIGHTS, SEEN_RSNA, Layout
from src.retinanet.encoders.renamed_weights import LAYOUTS
from src.retinanet.encoders.weights import WeightsError, find_weights, load_encoder_weights
from tests.paths import ROOT

State = dict[str, Tensor]


def drawn(network: nn.Module) -> State:
    """Return the state of a network, every number of it drawn anew."""
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }


def in_transformers_names(state: State) -> State:
    """Name timm's DINOv2 as transformers' Dinov2Model does."""
    found = {"embeddings.mask_token": torch.zeros(1, 1)}
    for key, value in state.items():
        if ".attn.qkv." in key:
            _, layer, *_, kind = key.split(".")
            for part, matrix in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"encoder.layer.{layer}.attention.attention.{part}.{kind}"] = matrix
            continue
        for ours, theirs in (
            ("blocks.", "encoder.layer."),
            (".attn.proj.", ".attention.output.dense."),
            (".ls1.gamma", ".layer_scale1.lambda1"),
            (".ls2.gamma", ".layer_scale2.lambda1"),
            ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
            ("cls_token", "embeddings.cls_token"),
            ("pos_embed", "embeddings.position_embeddings"),
        ):
            key = key.replace(ours, theirs)
        found[re.sub("^norm", "layernorm", key)] = value
    return found


def in_eva_names(state: State) -> State:
    """Name timm's EVA-02 as its authors' training does, mask token and head included."""
    renamed = {}
    for key, value in state.items():
        for ours, theirs in (
            ("fc_norm.", "norm."),
            ("q_proj.bias", "q_bias"),
            ("v_proj.bias", "v_bias"),
            ("mlp.fc1_g.", "mlp.w1."),
            ("mlp.fc1_x.", "mlp.w2."),
            ("mlp.fc1.", "mlp.w12."),
            ("mlp.fc2.", "mlp.w3."),
            ("mlp.norm.", "mlp.ffn_ln."),
        ):
            key = key.replace(ours, theirs)
        renamed[key] = value
    width = state["cls_token"].shape[-1]
    head = {"lm_head.weight": torch.zeros(512, width), "lm_head.bias": torch.zeros(512)}
    return renamed | head | {"mask_token": torch.zeros(1, 1, width)}


def in_ark_names(state: State) -> State:
    """Name timm's Swin as Ark+ does, which was trained with timm 0.5.4 on several GPUs."""
    found = {}
    for key, value in state.items():
        stage = re.match(r"layers\.(\d+)\.downsample", key)
        if stage:
            key = key.replace(stage[0], f"layers.{int(stage[1]) - 1}.downsample")
        if not key.startswith("head."):
            found[f"module.{key}"] = value
    extra = ("layers.0.blocks.1.attn_mask", "layers.0.blocks.0.attn.relative_position_index")
    heads = ("projector.weight", "projector.bias", "omni_heads.0.weight", "omni_heads.0.bias")
    return found | {f"module.{key}": torch.zeros(1) for key in (*extra, *heads)}


def load(name: str, content: object, layout: Layout, tmp_path: Path, **options: int) -> Any:
    torch.save(content, tmp_path / "made_up.pth")
    encoder = build_encoder(name, **options)
    load_encoder_weights(encoder, name, tmp_path / "made_up.pth", layout)
    return encoder


@pytest.mark.parametrize("name", NAMED_WEIGHTS)
def test_every_entry_names_an_encoder_that_can_be_built(name):
    weights = NAMED_WEIGHTS[name]
    with torch.device("meta"):
        encoder = build_encoder(weights.encoder, img_size=512, in_channels=weights.in_channels)
    assert len(encoder.out_channels) == 4


def test_every_entry_can_be_had_somehow():
    assert all(weights.sources or weights.by_hand for weights in NAMED_WEIGHTS.values())


def test_an_entry_that_has_seen_rsna_images_says_so():
    said = {name for name, entry in NAMED_WEIGHTS.items() if SEEN_RSNA in entry.describe()}
    nih_or_rsna = {
        name
        for name, entry in NAMED_WEIGHTS.items()
        if "NIH" in entry.trained_on or "RSNA" in entry.trained_on
    }
    assert said == nih_or_rsna
    assert "xrv_densenet121_chex" not in said


def test_torchxrayvisions_densenet_finds_its_place(tmp_path):
    state = drawn(timm.create_model("densenet121", in_chans=1, num_classes=18))
    content = {**state, "op_threshs": torch.rand(18)}
    encoder = load("timm/densenet121", content, "densenet", tmp_path, in_channels=1)
    for key, value in encoder.net.state_dict().items():
        assert torch.equal(value, state["features." + key.removeprefix("features_")]), key


def test_torchxrayvisions_resnet_finds_its_place(tmp_path):
    network = torchvision.models.resnet50(num_classes=18)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    state = drawn(network)
    encoder = load("resnet50", state, "encoder", tmp_path, in_channels=1)
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


def test_a_whole_model_of_torchxrayvision_is_refused(tmp_path):
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "model.pt")
    encoder = build_encoder("timm/densenet121", in_channels=1)
    with pytest.raises(WeightsError, match="more than tensors in it, which is not loaded"):
        load_encoder_weights(encoder, "timm/densenet121", tmp_path / "model.pt", "densenet")


def test_rad_dinos_keys_and_shapes_are_all_used():
    with torch.device("meta"):
        network = timm.create_model("vit_base_patch14_dinov2")
    expected = {key: value.shape for key, value in network.state_dict().items()}
    found = LAYOUTS["dinov2"].rename(in_transformers_names(network.state_dict()))
    assert {key: value.shape for key, value in found.items()} == expected


def test_dinov2_of_transformers_gives_timms_weights():
    network = timm.create_model("vit_small_patch14_dinov2", depth=2, img_size=84).eval()
    found = LAYOUTS["dinov2"].rename(in_transformers_names(network.state_dict()))
    assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())
    assert len(found) == len(network.state_dict())


def test_patches_of_14_are_resampled_to_16(tmp_path):
    state = drawn(timm.create_model("vit_small_patch14_dinov2"))
    name = "timm/vit_small_patch14_dinov2"
    encoder = load(name, in_transformers_names(state), "dinov2", tmp_path, img_size=96)
    own = encoder.net.model.state_dict()
    assert own["patch_embed.proj.weight"].shape == (384, 3, 16, 16)
    assert own["pos_embed"].shape == (1, 6 * 6 + 1, 384)
    assert torch.equal(own["pos_embed"][:, 0], state["pos_embed"][:, 0])
    assert torch.equal(own["blocks.11.mlp.fc2.weight"], state["blocks.11.mlp.fc2.weight"])


def test_eva_xs_base_keys_are_all_used():
    with torch.device("meta"):
        network = eva_x.eva_x_base_patch16_224()
    found = timm.models.eva.checkpoint_filter_fn(in_eva_names(network.state_dict()), network)
    assert set(found) == set(network.state_dict())


def test_eva_xs_keys_and_shapes_all_find_their_place(tmp_path):
    name = "eva_x_tiny_patch16_224"
    state = drawn(eva_x.eva_x_tiny_patch16_224())
    content = {"module": in_eva_names(state), "epoch": 900}
    encoder = load(f"timm/{name}", content, "eva", tmp_path, img_size=96)
    own = encoder.net.model.state_dict()
    assert own["pos_embed"].shape == (1, 6 * 6 + 1, 192)
    assert torch.equal(own["blocks.3.mlp.fc1.weight"], state["blocks.3.mlp.fc1.weight"])


def test_eva_xs_positions_are_those_of_its_training_grid():
    with torch.device("meta"):
        encoder: Any = build_encoder("timm/eva_x_small_patch16_224", img_size=512)
    assert encoder.net.model.rope.ref_feat_shape == (14, 14)


def test_ark_pluss_keys_and_shapes_are_all_used():
    with torch.device("meta"):
        network = timm.create_model("swin_large_patch4_window12_384", num_classes=0, img_size=768)
    expected = {key: value.shape for key, value in network.state_dict().items()}
    named = LAYOUTS["ark"].rename(in_ark_names(network.state_dict()))
    found = timm.models.swin_transformer.checkpoint_filter_fn(named, network)
    assert {key: value.shape for key, value in found.items()} == expected


def test_ark_plus_takes_the_teacher(tmp_path):
    name = "timm/swin_tiny_patch4_window7_224"
    state = drawn(timm.create_model(name.removeprefix("timm/")))
    content = {"teacher": in_ark_names(state), "state_dict": {"module.other": torch.zeros(1)}}
    encoder = load(name, content, "ark", tmp_path, img_size=224)
    own = encoder.net.state_dict()
    key = "layers.2.downsample.reduction.weight"
    assert torch.equal(own[key.replace("layers.2", "layers_2")], state[key])


def test_weights_without_classifier_must_still_be_whole(tmp_path):
    state = in_ark_names(timm.create_model("swin_tiny_patch4_window7_224").state_dict())
    del state["module.layers.1.blocks.0.norm1.weight"]
    with pytest.raises(WeightsError, match=r"layers\.1\.blocks\.0\.norm1\.weight"):
        load("timm/swin_tiny_patch4_window7_224", {"teacher": state}, "ark", tmp_path, img_size=224)


def test_dinov3s_convnext_is_timms_own(tmp_path):
    name = "convnext_tiny.dinov3_lvd1689m"
    state = drawn(timm.create_model(name))
    encoder = load(f"timm/{name}", state, "encoder", tmp_path)
    own = encoder.net.state_dict()["stages_3.blocks.2.mlp.fc2.weight"]
    assert torch.equal(own, state["stages.3.blocks.2.mlp.fc2.weight"])


def test_find_looks_for_named_weights_under_their_name(tmp_path):
    (tmp_path / "timm_densenet121.pth").touch()
    kept = tmp_path / "xrv_densenet121_all.pth"
    kept.touch()
    found = find_weights("timm/densenet121", weights_dir=tmp_path, named="xrv_densenet121_all")
    assert found == kept


def test_find_says_how_to_get_weights_that_cannot_be_downloaded(tmp_path):
    with pytest.raises(WeightsError, match=r"xrv_densenet121_chex\.pth.*DenseNet\(weights='dense"):
        find_weights("timm/densenet121", weights_dir=tmp_path, named="xrv_densenet121_chex")


def test_the_table_needs_no_pytorch():
    code = "import sys; import src.experiments.experiment; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
