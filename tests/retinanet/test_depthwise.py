import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.retinanet.acceleration import Acceleration
from src.retinanet.depthwise import FastDepthwise
from tests.made_batches import CPU

# channels, side, kernel, stride, padding, dilation, groups, bias
SHAPES = {
    "3x3 in strides": (8, 17, 3, 2, 1, 1, 8, False),
    "5x5": (8, 12, 5, 1, 2, 1, 8, True),
    "5x5 in strides, no padding": (8, 16, 5, 2, 0, 1, 8, False),
    "7x3 in uneven strides": (6, 20, (7, 3), (3, 1), (3, 1), 1, 6, True),
    "3x3": (8, 12, 3, 1, 1, 1, 8, False),
    "dilated": (8, 16, 3, 2, 2, 2, 8, False),
    "same": (8, 16, 5, 1, "same", 1, 8, False),
    "of groups": (8, 16, 3, 2, 1, 1, 4, False),
    "plain": (8, 16, 5, 2, 2, 1, 1, True),
}


def gradients(shape, context):
    channels, side, kernel, stride, padding, dilation, groups, bias = shape
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups, bias)
    images = torch.randn(2, channels, side, side, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), context:
        out = layer(images)
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape).to(out.dtype))
    return [out, images.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_fast_gradients_are_those_of_pytorch(shape):
    expected = gradients(shape, torch.enable_grad())
    for ours, theirs in zip(gradients(shape, FastDepthwise()), expected, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


def backward_nodes(tensor):
    """The names of the operations that a tensor was computed by."""
    nodes, found = [tensor.grad_fn], []
    while nodes:
        node = nodes.pop()
        found.append(node.name())
        nodes += [each for each, _ in node.next_functions if each is not None]
    return found


@pytest.mark.parametrize(
    ("settings", "is_trained", "is_fast"),
    [
        ({"precision": "bf16"}, True, True),
        ({"precision": "fp32"}, True, False),
        ({"precision": "bf16"}, False, False),
        ({"precision": "bf16", "compiles": True}, True, False),
        ({"precision": "bf16", "recomputes_encoder": True}, True, False),
    ],
)
def test_acceleration_uses_them_in_plain_bf16_training_alone(settings, is_trained, is_fast):
    layer = nn.Conv2d(4, 4, 5, groups=4)
    arithmetic = Acceleration(device=CPU, **settings).arithmetic()
    with arithmetic, torch.set_grad_enabled(is_trained):
        out = layer(torch.zeros(1, 4, 8, 8))
    nodes = backward_nodes(out) if out.requires_grad else []
    assert ("_DepthwiseBackward" in nodes) == is_fast


def test_only_what_is_slow_is_put_together_anew():
    images, weight = torch.zeros(1, 4, 8, 8), torch.zeros(4, 1, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), FastDepthwise():
        out = F.conv2d(images, weight, groups=4)
    assert "_DepthwiseBackward" not in backward_nodes(out)
