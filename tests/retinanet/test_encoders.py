"""Every encoder keeps the contract: four maps, exact strides, nothing idle, no crosstalk."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.retinanet.encoders import ENCODERS, build_encoder
from src.retinanet.encoders.encoder import Encoder

ROOT = Path(__file__).parents[2]
ORACLE_PATH = Path(__file__).parents[3] / "shared" / "golden" / "encoders.json"

ODD_SIZE = (96, 160)  # height and width: odd multiples of 32
EVEN_SIZE = (128, 64)

# The release's encoders of these names carry an ImageNet classifier that nothing reads: its inputs
# and classes. Ours leave it out.
IDLE_CLASSIFIERS = {
    "xception": (2048, 1000),
    "inceptionresnetv2": (1536, 1001),
    "nasnet_mobile": (1056, 1000),
    "pnasnet5large": (4320, 1001),
    "dpn92": (2688, 1000),
}

# The modules whose outputs the release takes as C2 to C5.
RESIDUAL = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "se_resnext50",
            "se_resnext101")  # fmt: skip
LEVELS = {
    **dict.fromkeys(RESIDUAL, ("layer1", "layer2", "layer3", "layer4")),
    "xception": ("net.block1", "net.block2", "net.block11", "net.bn4"),
    "inceptionresnetv2": ("net.conv2d_4a", "net.repeat", "net.repeat_1", "net.conv2d_7b"),
    "nasnet_mobile": ("net.cell_stem_0", "net.cell_3", "net.cell_9", "net.cell_15"),
    "pnasnet5large": ("net.cell_stem_0", "net.cell_3", "net.cell_7", "net.cell_11"),
    "dpn92": (
        "features.conv2_3",
        "features.conv3_4",
        "features.conv4_20",
        "features.conv5_bn_ac",
    ),
}

of_release = pytest.mark.parametrize("named", LEVELS, indirect=True)

TIMM_SIZES = {  # the input's height and width
    "timm/convnext_atto": ODD_SIZE,
    "timm/seresnext50_32x4d": ODD_SIZE,
    "timm/efficientnet_b3": ODD_SIZE,
    "timm/hrnet_w18_small": ODD_SIZE,
    "timm/sedarknet21": (32, 96),  # six maps, the last is not among timm's five
    "timm/swinv2_tiny_window8_256": (96, 96),  # gives (B, H, W, C)
    "timm/swin_tiny_patch4_window7_224": (96, 96),
    "timm/maxvit_tiny_tf_224": (96, 96),
    "timm/vit_tiny_patch16_224": (96, 96),  # plain: needs the pyramid
    "timm/vit_small_patch14_dinov2": (96, 96),  # with patches of 16
    "timm/mobilevitv2_050": (64, 128),  # takes multiples of 64 alone
    "timm/coat_lite_tiny": (96, 96),  # has modules under two paths
}


@pytest.fixture(scope="module", params=ENCODERS)
def named(request: pytest.FixtureRequest) -> Iterator[tuple[str, Encoder]]:
    """Give each encoder's name and the encoder in evaluation mode."""
    torch.manual_seed(0)
    yield request.param, build_encoder(request.param).eval()


@pytest.fixture(scope="module", params=TIMM_SIZES)
def named_timm(request: pytest.FixtureRequest) -> Iterator[tuple[str, Encoder]]:
    torch.manual_seed(0)
    side = TIMM_SIZES[request.param][0]
    yield request.param, build_encoder(request.param, img_size=side).eval()


@pytest.fixture(scope="module")
def oracle() -> dict:
    if not ORACLE_PATH.is_file():
        pytest.skip(f"no counts and shapes of the original release at {ORACLE_PATH}")
    return json.loads(ORACLE_PATH.read_text())


def assert_exact_strides(encoder: Encoder, maps: tuple[Tensor, ...], size: tuple[int, int]) -> None:
    height, width = size
    expected = [
        (1, channels, height // stride, width // stride)
        for channels, stride in zip(encoder.out_channels, (4, 8, 16, 32), strict=True)
    ]
    assert [tuple(level.shape) for level in maps] == expected


def idle_parameters(encoder: Encoder, size: tuple[int, int]) -> list[str]:
    """Return the parameters that no gradient reaches from the four maps."""
    encoder.zero_grad(set_to_none=True)
    maps = encoder(torch.rand(1, 3, *size))
    sum(level.square().mean() for level in maps).backward()
    idle = [name for name, weight in encoder.named_parameters() if weight.grad is None]
    encoder.zero_grad(set_to_none=True)
    return idle


@torch.no_grad()
def assert_batch_equals_singles(encoder: Encoder, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    together = encoder(images)
    alone = [encoder(images[i : i + 1]) for i in range(2)]
    for level, first, second in zip(together, *alone, strict=True):
        largest = float(level.abs().max())
        assert largest > 0
        torch.testing.assert_close(
            level, torch.cat([first, second]), rtol=1e-4, atol=1e-4 * largest
        )


@pytest.mark.parametrize("size", [ODD_SIZE, EVEN_SIZE], ids=["odd", "even"])
def test_encoder_strides_are_exact(named, size):
    _, encoder = named
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, *size))
    assert_exact_strides(encoder, maps, size)
    assert all(level.isfinite().all() for level in maps)


def test_encoder_gradients_reach_every_parameter(named):
    _, encoder = named
    assert idle_parameters(encoder, (64, 64)) == []


def test_encoder_batch_equals_singles(named):
    _, encoder = named
    assert_batch_equals_singles(encoder, (64, 96))


@of_release
def test_encoder_parameters_equal_release_without_idle_classifier(named, oracle):
    name, encoder = named
    n_inputs, n_classes = IDLE_CLASSIFIERS.get(name, (0, 0))
    n_idle = n_inputs * n_classes + n_classes
    n_parameters = sum(weight.numel() for weight in encoder.parameters())
    assert n_parameters + n_idle == oracle[name]["params_encoder"]


@of_release
def test_encoder_shapes_equal_release(named, oracle):
    name, _ = named
    with torch.device("meta"):
        encoder = build_encoder(name).eval()
        maps = encoder(torch.rand(1, 3, 256, 256))
    assert [list(level.shape[1:]) for level in maps] == oracle[name]["features_at_256"]
    assert list(encoder.out_channels) == oracle[name]["fpn_sizes"]


@of_release
def test_encoder_maps_are_those_of_release(named):
    name, encoder = named
    outputs: dict[str, Tensor] = {}

    def keep(level: str):
        def hook(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            outputs[level] = torch.cat(output, 1) if isinstance(output, tuple) else output

        return hook

    hooks = [
        encoder.get_submodule(level).register_forward_hook(keep(level)) for level in LEVELS[name]
    ]
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert all(
        torch.equal(level, outputs[place]) for level, place in zip(maps, LEVELS[name], strict=True)
    )


@pytest.mark.parametrize(
    "named", ["xception", "inceptionresnetv2", "nasnet_mobile", "pnasnet5large"], indirect=True
)
@torch.no_grad()
def test_encoder_c5_equals_source_networks_own_pass(named):
    _, encoder = named
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(encoder(images)[-1], encoder.net.features(images))


def test_oracle_names_are_the_releases(oracle):
    assert set(oracle) == set(LEVELS)


def test_import_needs_neither_pretrainedmodels_nor_timm():
    check = (
        "import sys, src.retinanet.encoders, src.retinanet.encoders.weights; print(*sys.modules)"
    )
    loaded = subprocess.check_output([sys.executable, "-c", check], cwd=ROOT, text=True).split()
    assert "torch" in loaded
    assert not {"timm", "pretrainedmodels", "huggingface_hub"} & set(loaded)


def test_build_encoder_unknown_name_tells_near_ones():
    with pytest.raises(ValueError, match=r"'resnet51'; did you mean resnet50 .*or timm/<model>"):
        build_encoder("resnet51")


def test_timm_strides_are_exact(named_timm):
    name, encoder = named_timm
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, *TIMM_SIZES[name]))
    assert_exact_strides(encoder, maps, TIMM_SIZES[name])


def test_timm_gradients_reach_every_parameter(named_timm):
    name, encoder = named_timm
    assert idle_parameters(encoder, TIMM_SIZES[name]) == []


def test_timm_batch_equals_singles(named_timm):
    name, encoder = named_timm
    assert_batch_equals_singles(encoder, TIMM_SIZES[name])


def test_timm_fixed_size_defaults_to_timms():
    with torch.device("meta"):
        encoder = build_encoder("timm/vit_tiny_patch16_224")
        maps = encoder(torch.rand(1, 3, 224, 224))
    assert [level.shape[-1] for level in maps] == [56, 28, 14, 7]


def test_timm_encoder_is_built_in_training_mode():
    assert build_encoder("timm/convnext_atto").training


@pytest.mark.parametrize(
    ("model", "img_size", "reason"),
    [
        ("convnext_tinny", None, r"no model 'convnext_tinny'; near it: timm/convnext_tiny"),
        ("convnext_tiny.none_in1k", None, r"no weights .*timm/convnext_tiny\.fb_in1k"),
        ("vit_tiny_patch16_224", 100, r"100 pixels is not a multiple of 32"),
        ("vit_small_patch8_224", None, r"stride 8 and none of 4, 16.* timm/vit_\w+patch16"),
        ("vit_small_patch14_dinov2", None, r"518 pixels is not a multiple of 32"),
        ("mobilevitv2_050", None, r"of 96 pixels it makes a map of 4 x 4, not of stride 32"),
        ("levit_128s", None, r"none of 4, 8; these can: timm/convnext_tiny"),
        ("inception_v3", None, r"of 96 pixels it makes a map of 20 x 20, not of stride 4"),
    ],
)
def test_timm_unusable_model_says_why(model, img_size, reason):
    with torch.device("meta"), pytest.raises(ValueError, match=reason):
        build_encoder(f"timm/{model}", img_size=img_size)
