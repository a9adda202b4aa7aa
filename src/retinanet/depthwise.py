"""Faster gradients of depthwise convolutions in bf16 on a CPU; `Acceleration` trains with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

WINDOW = 3  # side of the kernels whose gradient oneDNN has fast code for


class FastDepthwise(TorchFunctionMode):
    """Run depthwise convolutions in the block with gradients that are fast in bf16.

    What oneDNN lacks fast code for is put together from what it has it for: the gradient of the
    input behind a stride of 2 or more, and the gradient of kernels larger than 3. Whatever library
    an encoder comes from, its convolutions pass through here.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever `func` returns
        kwargs = kwargs or {}
        if func is not torch.conv2d or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        return _conv2d(func, *args, **kwargs)


def _conv2d(
    plain: Callable[..., Tensor],
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Take the place of torch.conv2d."""
    kernel, steps = weight.shape[2:], _sides(stride)
    is_depthwise = weight.shape[0] == groups == images.shape[1] > 1 and min(kernel) >= WINDOW
    is_slow = max(kernel) > WINDOW or max(steps) > 1
    if not (is_depthwise and is_slow) or isinstance(padding, str) or _sides(dilation) != (1, 1):
        return plain(images, weight, bias, stride, padding, dilation, groups)
    dtype = torch.get_autocast_dtype("cpu")
    above, left = _sides(padding)
    padded = F.pad(images.to(dtype), (left, left, above, above))
    out: Tensor = _Depthwise.apply(padded, weight.to(dtype), steps)
    return out if bias is None else out + bias.to(dtype)[:, None, None]


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution (B, C, H, W) by (C, 1, h, w) without padding."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, steps: tuple[int, int]) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(images, weight)
        ctx.steps = steps
        return F.conv2d(images, weight, stride=steps, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        images, weight = ctx.saved_tensors
        for_images, for_weight = ctx.needs_input_grad[:2]
        return (
            _gradient_of_images(gradient, images, weight, ctx.steps) if for_images else None,
            _gradient_of_weight(gradient, images, weight, ctx.steps) if for_weight else None,
            None,
        )


def _gradient_of_images(
    gradient: Tensor, images: Tensor, weight: Tensor, steps: tuple[int, int]
) -> Tensor:
    """Compute it as that of a convolution of stride 1, all whose other results do not count."""
    if max(steps) > 1:
        sides = [
            side - part + 1 for side, part in zip(images.shape[2:], weight.shape[2:], strict=True)
        ]
        spread = torch.empty(
            (*gradient.shape[:2], *sides), dtype=gradient.dtype, memory_format=torch.channels_last
        ).zero_()
        spread[:, :, :: steps[0], :: steps[1]] = gradient
        gradient = spread
    return _gradients(gradient, images, weight, (1, 1), (True, False))[0]


def _gradient_of_weight(
    gradient: Tensor, images: Tensor, weight: Tensor, steps: tuple[int, int]
) -> Tensor:
    """Compute it window by window of the kernel; windows may overlap."""
    result = torch.empty_like(weight)
    extents = [(n - 1) * step + WINDOW for n, step in zip(gradient.shape[2:], steps, strict=True)]
    for top in _window_starts(weight.shape[2]):
        for left in _window_starts(weight.shape[3]):
            window = ..., slice(top, top + WINDOW), slice(left, left + WINDOW)
            seen = images[..., top : top + extents[0], left : left + extents[1]]
            seen = seen.contiguous(memory_format=torch.channels_last)
            part = weight[window].contiguous()
            result[window] = _gradients(gradient, seen, part, steps, (False, True))[1]
    return result


def _window_starts(side: int) -> list[int]:
    return [*range(0, side - WINDOW, WINDOW), side - WINDOW]


def _gradients(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    steps: tuple[int, int],
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """Let PyTorch compute the gradients of images and weight, those that are wanted."""
    place = [0, 0], [1, 1], False, [0, 0], len(weight)  # padding, dilation, transposed, its padding
    of_images, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, list(steps), *place, [*wanted, False]
    )
    return of_images, of_weight


def _sides(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
