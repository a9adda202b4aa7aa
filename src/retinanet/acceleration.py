"""How a network runs on its device: number format, memory layout, compilation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.utils.checkpoint import checkpoint

from src.retinanet.depthwise import FastDepthwise
from src.retinanet.ensemble import Ensemble
from src.retinanet.model import RetinaNet
from src.structures import Precision
from src.system.errors import InputError
from src.system.processes import process_peak

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Acceleration:
    """Where and how a network runs.

    Attributes:
        device: where.
        precision: of convolutions and products; losses, probabilities and decoding are float32.
        compiles: let torch.compile fuse what it can; the first batches wait for it.
        recomputes_encoder: keep no activations inside the encoder's blocks but compute them
            again in the backward pass: less memory, more time.
    """

    device: torch.device
    precision: Precision = "fp32"
    compiles: bool = False
    recomputes_encoder: bool = False

    def place_for_training(self, model: RetinaNet) -> None:
        """Bring a network that will be trained to its device.

        Raises:
            InputError: the encoder is to be recomputed and cannot be.
        """
        move(model, self.device)
        if self.recomputes_encoder:
            if model.train_batch_norm:
                raise InputError(
                    "--checkpoint-encoder would count every batch twice in this experiment's "
                    "batch norm statistics; it is for frozen batch norm"
                )
            if not recompute_blocks(model.encoder):
                raise InputError("--checkpoint-encoder: this encoder has no sequence of blocks")
        self._compile(model)

    def place_for_inference(self, model: RetinaNet | Ensemble) -> None:
        """Bring a network that will not be trained to its device; its layers may be merged."""
        model.eval()
        networks = model.networks() if isinstance(model, Ensemble) else [model]
        for network in networks:
            if self.device.type == "cuda" and not self.compiles:  # gains nothing on a CPU
                network.encoder = fold_batch_norm(network.encoder)
            move(network, self.device)
            self._compile(network)

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Run the network in the block in the chosen precision.

        Raises:
            InputError: the network is to be compiled and cannot be.
        """
        dtype = DTYPES[self.precision]
        # What compiles or computes the layers again would not see the same operations twice.
        is_plain = not (self.compiles or self.recomputes_encoder)
        is_fast = dtype == torch.bfloat16 and self.device.type == "cpu" and is_plain
        faster = FastDepthwise() if is_fast else nullcontext()
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32), faster:
            try:
                yield
            except RuntimeError as error:
                if self.compiles and isinstance(error, torch._dynamo.exc.BackendCompilerFailed):
                    raise _cannot_compile(error) from error
                raise

    def out_of_memory(self, batch_size: int, img_size: int, advice: str) -> InputError:
        """Make the error of a GPU that cannot hold a batch."""
        return InputError(
            f"the GPU's memory is too small for {batch_size} images of {img_size} px in "
            f"{self.precision}; {advice}"
        )

    def _compile(self, model: RetinaNet) -> None:
        if self.compiles:  # not the box head, whose input changes size with every batch
            for part in (model.encoder, model.pyramid, model.class_head, model.global_head):
                part.compile()


def _cannot_compile(error: Exception) -> InputError:
    cause = str(getattr(error, "inner_exception", error)).strip() or type(error).__name__
    return InputError(
        f"--compile: PyTorch cannot compile the network here: {cause.splitlines()[0]}; it "
        f"needs a working C++ compiler (g++, or the one that CXX names), and on a GPU Triton; "
        f"without --compile none is needed"
    )


def choose_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:1" into a device that is there.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name!r}: not on this machine; try auto or cpu") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name!r}: the network runs on cpu and cuda")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # what names no device means this one: pinned memory, clocks
    return device


def choose_precision(name: Precision | None, device: torch.device) -> Precision:
    """Take the flag; by default bf16 on GPUs that have it, else fp32.

    Raises:
        InputError: the device does not have it.
    """
    on_cuda = device.type == "cuda"
    has_bf16 = not on_cuda or torch.cuda.is_bf16_supported(including_emulation=False)
    if name is None:
        return "bf16" if on_cuda and has_bf16 else "fp32"
    if name == "fp16" and not on_cuda:
        raise InputError("--precision fp16: needs a GPU; a CPU takes fp32 and bf16")
    if name == "bf16" and not has_bf16:
        raise InputError("--precision bf16: this GPU would only emulate it; it takes fp32 and fp16")
    return name


def peak_memory(device: torch.device) -> int:
    """Return the bytes that tensors on a GPU have taken at most; on a CPU those of the process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process_peak()


def set_global_switches(*, deterministic: bool) -> None:
    """Choose between the fastest and the repeatable algorithms of a GPU."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def move(module: nn.Module, device: torch.device) -> None:
    """Bring a module to a device, its weights laid out as convolutions there are fastest."""
    module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_batch_norm(encoder: nn.Module) -> nn.Module:
    """Merge batch norm into the convolutions before it: exact, because its statistics are frozen.

    An encoder that cannot be traced, because its layers depend on the images, stays as it is.
    """
    try:
        return fuse(encoder)
    except Exception:  # tracing raises whatever the encoder's own code raises on its way
        return encoder


def recompute_blocks(encoder: nn.Module) -> int:
    """Let every block of an encoder keep its input alone and run again in the backward pass.

    Blocks are the outermost modules in a row of their kind that hold two or more layers.

    Returns:
        How many blocks there are.
    """
    n_blocks = 0
    children = list(encoder.children())
    in_a_row = isinstance(encoder, nn.Sequential | nn.ModuleList) or (
        len(children) > 1 and len({type(child) for child in children}) == 1
    )
    for child in children:
        is_row = isinstance(child, nn.Sequential | nn.ModuleList)
        if in_a_row and not is_row and _count_layers(child) > 1:
            child.forward = partial(checkpoint, child.forward, use_reentrant=False)
            n_blocks += 1
        else:
            n_blocks += recompute_blocks(child)
    return n_blocks


def _count_layers(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules())
