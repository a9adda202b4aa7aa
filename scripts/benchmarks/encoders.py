"""Size, arithmetic, speed and memory of every experiment's network."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from scripts.benchmarks.arithmetic import count_flops
from scripts.benchmarks.measuring import Row, describe_machine, report, time_in_turn
from scripts.benchmarks.memory import kept_bytes
from src.experiments.networks import build_model, count_parameters
from src.experiments.table import EXPERIMENTS
from src.retinanet.acceleration import choose_device, peak_memory
from src.retinanet.losses import detection_losses
from src.structures import Target
from src.system.errors import InputError
from src.training.optimizer import make_optimizer
from src.visualizations.figures import COLOURS, clean, new_figure, save_figure

SCRIPT = Path(__file__).resolve().parents[1] / "benchmark.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", help="experiments; default: one for each network")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--runs", type=int, default=3, help="timed runs; the median counts")
    parser.add_argument("--plot", type=Path, help="write a scatter plot (PNG, and PDF beside)")
    parser.add_argument("--json", type=Path, help="write the numbers")
    parser.add_argument("--worker", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> None:
    """Measure each network in a process of its own, so that peak memory is its own."""
    if arguments.worker:
        print(json.dumps(measure(arguments.worker, arguments)))
        return
    names = arguments.models or distinct_networks()
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        raise InputError(f"--models {unknown[0]!r}: no such experiment; --list-models names them")
    rows = []
    for name in names:
        command = [sys.executable, str(SCRIPT), "encoders", "--worker", name]
        for flag in ("device", "threads", "runs"):
            command += [f"--{flag}", str(getattr(arguments, flag))]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(result.stdout.splitlines()[-1]))
        print(f"{name}: {rows[-1]['forward s']:.2f} s forward", file=sys.stderr, flush=True)
    report(rows, describe_machine(arguments.device, arguments.threads), arguments.json)
    if arguments.plot:
        print(*save_figure(plot(rows), arguments.plot), sep="\n")


def distinct_networks() -> list[str]:
    """Return the first experiment of each network and input size."""
    seen: dict[tuple[object, ...], str] = {}
    for name, info in EXPERIMENTS.items():
        key = (info.encoder, info.img_size, info.pyramid_levels, info.pyramid_width)
        seen.setdefault(key, name)
    return list(seen.values())


def measure(name: str, arguments: argparse.Namespace) -> Row:
    """Measure one experiment: a forward pass and a training step of one image."""
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    info = EXPERIMENTS[name]
    model = build_model(info).to(device)
    optimizer = make_optimizer(model, info)
    n_images = 2 if info.trains_batch_norm else 1
    image = torch.rand(n_images, 1, info.img_size, info.img_size, device=device)
    box = torch.tensor([[0.2, 0.3, 0.4, 0.7]], device=device) * info.img_size
    targets = [Target(box, 2)] * n_images

    def forward() -> None:
        model.eval()
        with torch.inference_mode():
            model(image[:1])

    def step() -> None:
        model.train()
        losses = detection_losses(model(image), model.anchors(image), targets, settings=info.loss)
        optimizer.zero_grad()
        losses.total().backward()
        optimizer.step()

    synchronise = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    forward_time, step_time = time_in_turn(
        [forward, step], n_runs=arguments.runs, synchronise=synchronise
    )
    return {
        "experiment": name,
        "encoder": info.encoder,
        "input": info.img_size,
        "parameters M": count_parameters(info) / 1e6,
        "forward GFLOP": count_flops(info) / 1e9,
        "kept MB": kept_bytes(info) / 1e6,
        "forward s": forward_time.median,
        "step s an image": step_time.median / n_images,
        "peak GB": peak_memory(device) / 1e9,
    }


def plot(rows: list[Row]) -> Figure:
    """Draw time against arithmetic, a point for each network, its name at the right."""
    figure = new_figure(9, 6)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    ordered = sorted(rows, key=lambda row: row["step s an image"])
    for i, row in enumerate(ordered):
        place = (row["forward GFLOP"], row["step s an image"])
        axes.scatter(*place, s=4 * row["parameters M"] ** 0.9, color=COLOURS[0], alpha=0.6)
        axes.annotate(
            f"{row['encoder']} {row['input']}",
            place,
            fontsize=7,
            va="center",
            xytext=(1.03, (i + 0.5) / len(ordered)),
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "linewidth": 0.3, "color": "0.6"},
        )
    clean(
        axes,
        xlabel="GFLOP of a forward pass, one image",
        ylabel="training step, seconds an image",
        title="Cost of the networks; area: parameters",
    )
    return figure
