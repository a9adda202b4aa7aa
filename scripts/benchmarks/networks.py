"""What the network benchmarks share: a made-up batch, the ways to run a network, their table."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from scripts.benchmarks import peers
from scripts.benchmarks.arithmetic import batch_flops
from scripts.benchmarks.measuring import Row, Timing, describe_machine, report, time_in_turn
from scripts.benchmarks.memory import gpu_peak
from scripts.benchmarks.profiling import write_profile
from src.experiments.experiment import Experiment
from src.experiments.networks import build_model
from src.experiments.table import EXPERIMENTS
from src.retinanet.acceleration import (
    Acceleration,
    choose_device,
    choose_precision,
    set_global_switches,
)
from src.retinanet.model import RetinaNet
from src.structures import Batch, Target
from src.system.command_line import positive
from src.system.errors import InputError
from src.system.processes import keep_freed_memory, process_peak, return_freed_memory

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
        is_peer: torchvision's network instead.
        finds_weak: find weaker boxes too; in an untrained network every level has some, so that the
            box head runs everywhere.
    """

    name: str
    acceleration: Acceleration
    skips: bool = True
    is_plain: bool = False
    keeps_memory: bool = False
    is_peer: bool = False
    finds_weak: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="se_resnext50_512", help="experiment")
    parser.add_argument("--batch-size", type=positive, default=4)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=("bf16", "fp16"), default="bf16")
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well")
    parser.add_argument("--threads", type=int, default=2,
                        help="of the CPU; with 1 its processor time is measured")  # fmt: skip
    parser.add_argument("--runs", type=int, default=3, help="timed runs; the median counts")
    parser.add_argument("--fastest", action="store_true", help="only the way with every means")
    parser.add_argument("--beside-torchvision", action="store_true",
                        help="time torchvision's RetinaNet on ResNet-50 as well")  # fmt: skip
    parser.add_argument("--no-search", action="store_true",
                        help="cuDNN guesses its algorithms instead of trying them")  # fmt: skip
    parser.add_argument("--peak-tflops", type=float, help="of the device: tell the share reached")
    parser.add_argument("--profile", type=Path, help="write the fastest way's operators there")
    parser.add_argument("--trace", type=Path, help="with --profile: write a Chrome trace as well")
    parser.add_argument("--json", type=Path, help="write the numbers")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.set_defaults(weak_candidates=False)


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
    else:  # kernels of grouped convolutions are not always best channels last
        ways.insert(2, Way(f"the same, {precision}, not channels last", half, is_plain=True))
    if arguments.compile:
        compiled = Acceleration(device=device, precision=precision, compiles=True)
        ways.append(Way("+ compiled", compiled, keeps_memory=device.type == "cpu"))
    if arguments.fastest:
        ways = [replace(ways[-1], name=f"all means, {precision}")]
    if arguments.weak_candidates:
        ways.append(replace(ways[-1], name="+ weaker boxes, all levels", finds_weak=True))
    if arguments.beside_torchvision:
        peer = f"{peers.NAME}, {precision}"
        ways.append(Way(peer, half, skips=False, is_peer=True))
    return ways


def measure_ways(
    arguments: argparse.Namespace,
    part: str,
    make_work: Callable[[Way, Experiment, Batch], Callable[[], object]],
) -> None:
    """Time the ways in turn, measure their memory, print the table."""
    if arguments.model not in EXPERIMENTS:
        raise InputError(f"--model {arguments.model!r}: no such experiment")
    if arguments.trace and not arguments.profile:
        raise InputError("--trace goes with --profile")
    torch.set_num_threads(arguments.threads)
    experiment = EXPERIMENTS[arguments.model]
    ways = make_ways(arguments)
    batch = make_batch(experiment.img_size, arguments.batch_size)
    if arguments.memory_of:
        (way,) = [way for way in ways if way.name == arguments.memory_of]
        make_work(way, experiment, batch)()
        print(process_peak())
        return
    on_cuda = ways[0].acceleration.device.type == "cuda"
    if on_cuda:
        set_global_switches(deterministic=False)
        torch.backends.cudnn.benchmark = not arguments.no_search
        tried = _try_on_gpu(ways, lambda way: make_work(way, experiment, batch.pin_memory()))
    else:
        memory = [_memory_of(way, part, arguments) for way in ways]
        works = [make_work(way, experiment, batch) for way in ways]
        tried = list(zip(ways, works, memory, strict=True))
    timings = time_in_turn(
        [work for _, work, _ in tried],
        n_runs=arguments.runs,
        synchronise=torch.cuda.synchronize if on_cuda else lambda: None,
        clock=time.process_time if arguments.threads == 1 and not on_cuda else time.perf_counter,
    )
    rows = [
        _row(way, timing, timings[0], n_bytes, experiment, batch, arguments, trains=part == "train")
        for (way, _, n_bytes), timing in zip(tried, timings, strict=True)
    ]
    n_positive = sum(bool(len(target.boxes_xyxy)) for target in batch.targets)
    title = f"{part}: {arguments.model}, batches of {arguments.batch_size}, {n_positive} with a box"
    print(f"{title}\n")
    report(rows, describe_machine(arguments.device, arguments.threads), arguments.json)
    if arguments.profile:
        own = [i for i, (way, *_) in enumerate(tried) if not way.is_peer]
        way, work, _ = tried[min(own, key=lambda i: timings[i].median)]
        write_profile(work, f"{title}: {way.name}", arguments.profile, arguments.trace)
        print(arguments.profile)


def _row(
    way: Way,
    timing: Timing,
    first: Timing,
    n_bytes: int,
    experiment: Experiment,
    batch: Batch,
    arguments: argparse.Namespace,
    *,
    trains: bool,
) -> Row:
    n_images = len(batch.ids)
    if way.is_peer:
        n_operations = peers.batch_flops(experiment, n_images, trains=trains)
    else:
        skips = way.skips and not way.finds_weak
        n_operations = batch_flops(experiment, batch, skips=skips, trains=trains)
    row: Row = {
        "way": way.name,
        "median s": timing.median,
        "fastest s": timing.fastest,
        "slowest s": timing.slowest,
        "images a second": n_images / timing.median,
        "times the first" if arguments.fastest else "times plain": first.median / timing.median,
        "TFLOP/s": n_operations / timing.median / 1e12,
        "peak GB": n_bytes / 1e9,
    }
    if arguments.peak_tflops:
        row["of the peak %"] = 100 * row["TFLOP/s"] / arguments.peak_tflops
    return row


def _try_on_gpu(
    ways: Sequence[Way], make: Callable[[Way], Callable[[], object]]
) -> list[tuple[Way, Callable[[], object], int]]:
    """Make the work of each way and run it; leave out the ways that do not fit.

    Returns:
        Ways, their work, and the bytes that each takes at most by itself.

    Raises:
        InputError: none fits.
    """
    tried = []
    for way in ways:
        try:
            tried.append((way, *gpu_peak(partial(make, way))))
        except torch.OutOfMemoryError:
            print(f"{way.name}: does not fit into the GPU's memory")
        torch.cuda.empty_cache()
    if not tried:
        raise InputError("--batch-size: no way fits into the GPU's memory")
    return tried


def make_batch(img_size: int, n_images: int) -> Batch:
    """Make random images; as many have a box as in the challenge, one at least."""
    generator = torch.Generator().manual_seed(0)
    n_positive = max(1, round(n_images * (1 - EMPTY_SHARE)))
    x, y, w, h = np.multiply(BOX_XYWH, img_size).tolist()
    box = torch.tensor([[x, y, x + w, y + h]])
    targets = [Target(box, 2) if i < n_positive else Target(box[:0], 1) for i in range(n_images)]
    return Batch(
        torch.randint(256, (n_images, 1, img_size, img_size), generator=generator).byte(),
        tuple(targets),
        tuple(f"image {i}" for i in range(n_images)),
        ((1024, 1024),) * n_images,
    )


def make_network(way: Way, experiment: Experiment, *, for_training: bool) -> RetinaNet:
    """Build the network of one way; all ways get the same weights."""
    torch.manual_seed(0)
    model = build_model(experiment)
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
    command += ["--fastest"] * arguments.fastest
    command += ["--weak-candidates"] * arguments.weak_candidates
    command += ["--beside-torchvision"] * arguments.beside_torchvision
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(result.stdout.splitlines()[-1])
