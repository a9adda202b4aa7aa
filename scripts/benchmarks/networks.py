"""What the network benchmarks share: a made-up batch, the ways to run a network, their table."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from scripts.benchmarks.measuring import Row, describe_machine, report, time_in_turn
from src.acceleration import Acceleration, choose_device, choose_precision
from src.errors import InputError
from src.flag_values import positive
from src.machine import keep_freed_memory, return_freed_memory
from src.models import MODELS, ModelInfo, build_model
from src.retinanet.model import RetinaNet
from src.structures import Batch, Target

SCRIPT = Path(__file__).resolve().parents[1] / "benchmark.py"
EMPTY_SHARE = 0.775  # of the challenge's images
BOX_XYWH = (0.19, 0.36, 0.21, 0.32)  # shares of the side: the challenge's mean box


@dataclass(frozen=True)
class Way:
    """One way to do the work.

    Attributes:
        name: in the table.
        acceleration: where and how the network runs.
        skips: run the box head only where somebody looks.
        is_plain: lay the weights out as PyTorch does by itself.
        keeps_memory: let the C library keep what was freed (CPU).
    """

    name: str
    acceleration: Acceleration
    skips: bool = True
    is_plain: bool = False
    keeps_memory: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="se_resnext50_512", help="experiment")
    parser.add_argument("--batch-size", type=positive, default=4)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=("bf16", "fp16"), default="bf16")
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--runs", type=int, default=3, help="timed runs; the median counts")
    parser.add_argument("--json", type=Path, help="write the numbers")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)


def make_ways(arguments: argparse.Namespace) -> list[Way]:
    """List the ways, each with one more means than the one before."""
    device = choose_device(arguments.device)
    precision = choose_precision(arguments.precision, device)
    full = Acceleration(device=device)
    half = Acceleration(device=device, precision=precision)
    ways = [
        Way("plain, fp32", full, skips=False, is_plain=True),
        Way("+ box head where it counts", full, is_plain=True),
        Way("+ channels last", full),
        Way(f"+ {precision}", half),
    ]
    if device.type == "cpu":
        ways.append(Way("+ freed memory kept", half, keeps_memory=True))
    if arguments.compile:
        compiled = Acceleration(device=device, precision=precision, compiles=True)
        ways.append(Way("+ compiled", compiled, keeps_memory=device.type == "cpu"))
    return ways


def measure_ways(
    arguments: argparse.Namespace,
    part: str,
    make_work: Callable[[Way, ModelInfo, Batch], Callable[[], object]],
) -> None:
    """Time the ways in turn, measure their memory in processes of their own, print the table."""
    if arguments.model not in MODELS:
        raise InputError(f"--model {arguments.model!r}: no such experiment")
    torch.set_num_threads(arguments.threads)
    info = MODELS[arguments.model]
    ways = make_ways(arguments)
    batch = make_batch(info.img_size, arguments.batch_size)
    if arguments.memory_of:
        (way,) = [way for way in ways if way.name == arguments.memory_of]
        make_work(way, info, batch)()
        print(_peak_bytes(way.acceleration.device))
        return
    on_cuda = ways[0].acceleration.device.type == "cuda"
    memory = [_memory_of(way, part, arguments) for way in ways]
    timings = time_in_turn(
        [make_work(way, info, batch) for way in ways],
        n_runs=arguments.runs,
        synchronise=torch.cuda.synchronize if on_cuda else lambda: None,
    )
    rows: list[Row] = [
        {
            "way": way.name,
            "median s": timing.median,
            "fastest s": timing.fastest,
            "slowest s": timing.slowest,
            "images a second": arguments.batch_size / timing.median,
            "times plain": timings[0].median / timing.median,
            "peak GB": n_bytes / 1e9,
        }
        for way, timing, n_bytes in zip(ways, timings, memory, strict=True)
    ]
    n_positive = sum(bool(len(target.boxes_xyxy)) for target in batch.targets)
    print(
        f"{part}: {arguments.model}, batches of {arguments.batch_size}, {n_positive} with a box\n"
    )
    report(rows, describe_machine(arguments.device, arguments.threads), arguments.json)


def make_batch(img_size: int, n_images: int) -> Batch:
    """Make random images; as many have a box as in the challenge, one at least."""
    generator = torch.Generator().manual_seed(0)
    n_positive = max(1, round(n_images * (1 - EMPTY_SHARE)))
    x, y, w, h = np.multiply(BOX_XYWH, img_size).tolist()
    box = torch.tensor([[x, y, x + w, y + h]])
    targets = [Target(box, 2) if i < n_positive else Target(box[:0], 1) for i in range(n_images)]
    return Batch(
        torch.rand(n_images, 1, img_size, img_size, generator=generator),
        tuple(targets),
        tuple(f"image {i}" for i in range(n_images)),
        ((1024, 1024),) * n_images,
    )


def make_network(way: Way, info: ModelInfo, *, for_training: bool) -> RetinaNet:
    """Build the network of one way; all ways get the same weights."""
    torch.manual_seed(0)
    model = build_model(info)
    if way.is_plain:
        model.to(way.acceleration.device)
    elif for_training:
        way.acceleration.place_for_training(model)
    else:
        way.acceleration.place_for_inference(model)
    return model.train(for_training)


def set_memory(way: Way) -> None:
    """Choose what the C library does with freed memory, as the way wants it."""
    if way.keeps_memory:
        keep_freed_memory()
    else:
        return_freed_memory()


def _memory_of(way: Way, part: str, arguments: argparse.Namespace) -> int:
    command = [sys.executable, str(SCRIPT), part, "--memory-of", way.name, "--device",
               arguments.device, "--precision", arguments.precision, "--model", arguments.model,
               "--batch-size", str(arguments.batch_size)]  # fmt: skip
    command += ["--threads", str(arguments.threads), *["--compile"] * arguments.compile]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(result.stdout.splitlines()[-1])


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
