import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.retinanet.anchors import count_anchors
from src.retinanet.encoders import ENCODERS, build_encoder
from src.retinanet.encoders.encoder import Encoder
from src.retinanet.fpn import FeaturePyramid
from src.retinanet.heads import BoxHead, ClassHead, GlobalHead
from src.retinanet.model import RetinaNet, check_input_size
from src.retinanet.settings import IMAGENET, Normalisation
from tests.paths import shared
from tests.retinanet.test_encoders import IDLE_CLASSIFIERS


class TinyEncoder(Encoder):
    """Strided convolutions and one batch norm: an encoder that costs nothing."""

    out_channels = (8, 8, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 2, stride=2) for _ in range(3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        c2 = self.norm(self.stem(images))
        c3 = self.layers[0](c2)
        c4 = self.layers[1](c3)
        return c2, c3, c4, self.layers[2](c4)


def tiny_model(**options):
    torch.manual_seed(0)
    return RetinaNet(TinyEncoder(), width=8, head_depth=1, **options)


def formula(shape, shift, scale=1.0, step=0.37):
    """The weights and inputs that ../shared/golden/README.md defines."""
    values = np.cos(step * np.arange(math.prod(shape)) + shift) * scale
    return torch.from_numpy(values.reshape(shape)).float()


def fill(convolutions, k0):
    for k, conv in enumerate(convolutions):
        fan_in = conv.weight[0].numel()
        conv.weight.data = formula(conv.weight.shape, k0 + k, math.sqrt(2 / fan_in))
        conv.bias.data = formula(conv.bias.shape, k0 + k, 0.01, step=1.0)


def assert_close_to(expected, found):
    """Equal to float32 rounding: 1e-5 of the largest number."""
    np.testing.assert_allclose(found.detach(), expected, atol=1e-5 * np.abs(expected).max())


def golden_pyramid():
    pyramid = FeaturePyramid((8, 16, 24, 32), width=16)
    merged = [m for pair in zip(pyramid.lateral, pyramid.output, strict=True) for m in pair]
    fill([*merged, *pyramid.coarser], 0)
    shapes = [(2, 8, 32, 32), (2, 16, 16, 16), (2, 24, 8, 8), (2, 32, 4, 4)]
    c2, c3, c4, c5 = (formula(shape, n, step=0.11) for n, shape in enumerate(shapes))
    return pyramid((c2, c3, c4, c5))


def test_pyramid_and_heads_equal_the_original_release():
    golden = np.load(shared("golden") / "fpn_heads.npz")
    pyramid = golden_pyramid()
    for level, features in enumerate(pyramid, start=2):
        assert_close_to(golden[f"P{level}"], features)

    box_head, class_head = BoxHead(16, 4), ClassHead(16, 4, dropout=0.0)
    for head, k0 in ((box_head, 20), (class_head, 40)):
        fill([*(m for m in head.layers if isinstance(m, nn.Conv2d)), head.output], k0)
    deltas = torch.cat([box_head(level) for level in pyramid], dim=1)
    scores = torch.cat([class_head(level) for level in pyramid], dim=1).sigmoid()
    assert_close_to(golden["regression"], deltas)
    # The logits run to hundreds: their rounding of 4e-4 is at most a quarter of that in scores.
    np.testing.assert_allclose(scores.detach(), golden["classification"][..., 0], atol=2e-4)


def test_global_head_equals_the_original_release():
    golden = np.load(shared("golden") / "fpn_heads.npz")
    head = GlobalHead(32, 16, dropout=0.0)
    fill([head.conv], 60)
    head.linear.weight.data = formula((3, 32), 61, math.sqrt(2 / 32))
    head.linear.bias.data = formula((3,), 61, 0.01, step=1.0)
    log_probs = head(formula((2, 32, 8, 8), 9, step=0.11)).log_softmax(dim=1)
    np.testing.assert_allclose(log_probs.detach(), golden["global_log_probs"], atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_parameter_count_equals_the_original_release(name):
    """Less the ImageNet classifiers that five of the original's encoders carry along unused."""
    golden = json.loads((shared("golden") / "encoders.json").read_text())[name]
    with torch.device("meta"):
        model = RetinaNet(build_encoder(name))
    n_inputs, n_classes = IDLE_CLASSIFIERS.get(name, (0, 0))
    n_idle = n_inputs * n_classes + n_classes
    assert sum(p.numel() for p in model.parameters()) + n_idle == golden["params_total"]


@pytest.mark.parametrize("name", [*ENCODERS, "timm/convnext_tiny", "timm/regnetx_002"])
@pytest.mark.parametrize(
    ("levels", "width", "head_depth"),
    [((2, 3, 4, 5, 6, 7), 64, 4), ((3, 4, 5, 6, 7), 24, 1), ((3, 4, 5), 8, 0)],
)
def test_every_encoder_works_with_every_pyramid_and_head(name, levels, width, head_depth):
    with torch.device("meta"):  # shapes without arithmetic
        model = RetinaNet(build_encoder(name), levels=levels, width=width, head_depth=head_depth)
        outputs = model(torch.empty(2, 1, 192, 224))
    n_anchors = sum(count_anchors((192, 224), level) for level in levels)
    assert outputs.scores.shape == (2, n_anchors)
    assert outputs.deltas.shape == (2, n_anchors, 4)
    assert outputs.class_log_probs.shape == (2, 3)


def test_an_untrained_net_scores_every_anchor_with_the_prior():
    model = tiny_model().eval()
    outputs = model(torch.rand(2, 1, 192, 224))
    torch.testing.assert_close(outputs.scores, torch.full_like(outputs.scores, 0.01))
    assert outputs.deltas.abs().max() == 0
    assert outputs.scores.shape[1] == len(model.anchors(torch.rand(2, 1, 192, 224)))


def test_initial_weights_follow_the_original_rule():
    model = RetinaNet(TinyEncoder())
    weight = model.pyramid.output[0].weight
    assert isinstance(weight, torch.Tensor)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)


def test_a_batch_gives_what_single_images_give():
    model = tiny_model().eval()
    images = torch.rand(3, 1, 192, 192)
    batch = model(images)
    for i in range(3):
        for whole, single in zip(batch, model(images[i : i + 1]), strict=True):
            torch.testing.assert_close(whole[i], single[0])


@pytest.mark.parametrize("levels", [(2, 3, 4, 5, 6, 7), (3, 4, 5, 6, 7), (3, 4, 5), (5, 6)])
def test_outputs_fit_the_anchors_on_any_levels(levels):
    model = tiny_model(levels=levels)
    images = torch.rand(1, 1, 224, 192)
    outputs = model(images)
    assert outputs.deltas.shape == (1, len(model.anchors(images)), 4)


@pytest.mark.parametrize("levels", [(3, 5), (6, 7), (2, 3, 4), (3, 4, 5, 6, 7, 8)])
def test_levels_that_make_no_pyramid_are_refused(levels):
    with pytest.raises(ValueError, match="pyramid levels"):
        tiny_model(levels=levels)


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_scale():
    model = tiny_model().train()
    before = model.encoder.norm.running_mean.clone()
    model(torch.rand(2, 1, 192, 192)).deltas.sum().backward()
    assert torch.equal(model.encoder.norm.running_mean, before)
    assert model.encoder.norm.weight.requires_grad


def test_trained_batch_norm_moves_its_statistics():
    model = tiny_model(train_batch_norm=True).train()
    before = model.encoder.norm.running_mean.clone()
    model(torch.rand(2, 1, 192, 192))
    assert not torch.equal(model.encoder.norm.running_mean, before)


def encoder_input(model, images):
    """What the encoder is given."""
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    return seen[0]


def test_grey_is_copied_to_three_channels_as_it_is_by_default():
    images = torch.rand(2, 1, 192, 224)
    found = encoder_input(tiny_model(), images)
    assert torch.equal(found, torch.cat([images] * 3, dim=1))


@pytest.mark.parametrize(
    "normalisation", [IMAGENET, Normalisation(mean=(0.4,), deviation=(0.2,))], ids=["each", "all"]
)
def test_the_encoders_input_is_normalised_by_channel(normalisation):
    images = torch.rand(2, 1, 192, 224)
    found = encoder_input(tiny_model(normalisation=normalisation), images)
    mean, deviation = (
        np.broadcast_to(numbers, 3) for numbers in (normalisation.mean, normalisation.deviation)
    )
    for channel in range(3):
        expected = (images[:, 0].double() - mean[channel]) / deviation[channel]
        torch.testing.assert_close(found[:, channel].double(), expected, rtol=1e-6, atol=1e-6)


def test_a_network_without_normalisation_has_the_weights_that_it_always_had():
    plain, normalised = tiny_model().state_dict(), tiny_model(normalisation=IMAGENET).state_dict()
    assert set(normalised) - set(plain) == {"input_mean", "input_deviation"}
    assert not [name for name in plain if "input" in name]


def test_dropout_acts_in_training_only():
    model = tiny_model(dropout_global=0.5)
    images = torch.rand(1, 1, 192, 192)
    model.train()
    assert not torch.equal(model(images).class_log_probs, model(images).class_log_probs)
    model.eval()
    assert torch.equal(model(images).class_log_probs, model(images).class_log_probs)


@pytest.mark.parametrize(("height", "width"), [(160, 512), (512, 160), (200, 256)])
def test_sizes_that_the_net_cannot_take_are_refused(height, width):
    with pytest.raises(ValueError, match=r"192 px|multiples of 32"):
        check_input_size(height, width)
