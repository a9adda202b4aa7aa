"""How long a command takes to begin: help, mistakes, a checkpoint, a training's first step."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import config
from scripts.benchmarks.measuring import Row, describe_machine, report, time_in_turn
from src.experiments.table import EXPERIMENTS, get_experiment
from src.system.files import real_path

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "src" / "train_runner.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="se_resnext101_dr0.75_512", help="experiment")
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR,
                        help="the first step is timed on its images")  # fmt: skip
    parser.add_argument("--runs", type=int, default=5, help="timed runs; the median counts")
    parser.add_argument("--json", type=Path, help="write the numbers")


def run(arguments: argparse.Namespace) -> None:
    """Time whole commands, then the parts of a start."""
    from src.datasets.data_folder import DataFolder  # late, as in `time_checkpoint`

    get_experiment(arguments.model)
    DataFolder(arguments.data_dir).check()
    commands: dict[str, Sequence[object]] = {
        "python alone": ("-c", ""),
        "train_runner --help": (RUNNER, "--help"),
        "train_runner, a wrong flag": (RUNNER, "--no-such-flag"),
        "import torch": ("-c", "import torch"),
        "import torch, torchvision": ("-c", "import torch, torchvision"),
    }
    timings = time_in_turn([_runs(command) for command in commands.values()],
                           n_runs=arguments.runs)  # fmt: skip
    rows: list[Row] = [
        {"what": name, "median s": timing.median, "fastest s": timing.fastest}
        for name, timing in zip(commands, timings, strict=True)
    ]
    rows += time_checkpoint(arguments.model, arguments.runs)
    rows += _first_steps(arguments)
    report(rows, describe_machine("cpu", 1), arguments.json)


def time_checkpoint(name: str, n_runs: int) -> list[Row]:
    """Time a checkpoint into a network, the plain way and ours."""
    # Late, because `time_first_step` imports this module and times imports.
    from src.experiments.checkpoints import (
        Checkpoint,
        CheckpointFacts,
        load_checkpoint,
        load_weights,
    )
    from src.experiments.networks import build_model, load_network

    info = EXPERIMENTS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "000.safetensors"
        facts = CheckpointFacts(experiment=name, settings=info, epoch=0)
        Checkpoint(facts=facts, model=build_model(info).state_dict()).save(path)

        def plain() -> None:
            load_weights(build_model(info), load_checkpoint(path, name), path)

        def ours() -> None:
            load_network(load_checkpoint(path, name), path)

        timings = time_in_turn([plain, ours], n_runs=n_runs)
    return [
        {"what": f"checkpoint into a network, {way}", "median s": t.median, "fastest s": t.fastest}
        for way, t in zip(("plain", "ours"), timings, strict=True)
    ]


def time_first_step(name: str, data_dir: Path) -> dict[str, float]:
    """Time the parts of a training's start, in a process that has imported nothing yet."""
    seconds: dict[str, float] = {}
    start = time.perf_counter()

    def passed(part: str) -> None:
        nonlocal start
        seconds[part], start = time.perf_counter() - start, time.perf_counter()

    import torch

    from src.datasets.loaders import load_labelled_images
    from src.experiments.runs import Run
    from src.retinanet.acceleration import Acceleration
    from src.training.loop import Training
    from src.training.options import TrainingOptions

    passed("imports")
    images = load_labelled_images(data_dir, 0)
    passed("labels and folds")
    from src.experiments.networks import build_model

    info = replace(EXPERIMENTS[name], batch_size=2)
    build_model(info)
    passed("network")
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingOptions(
            acceleration=Acceleration(device=torch.device("cpu")), seed=0, n_workers=1
        )
        training = Training(Run(name, 0, "", Path(folder)), info, images, options)
        training.start()
        passed("network again, optimizer, loaders, experiment.json")
        batch = next(iter(training.train_loader))
        passed("first batch from a worker")
        from src.training.epoch import train_epoch
        from src.training.progress import Progress

        train_epoch(training.learner, [batch], Progress(epoch=0), shows_progress=False)
        passed("first step, two images")
    return seconds


def _first_steps(arguments: argparse.Namespace) -> list[Row]:
    code = (
        "import json; from pathlib import Path; from scripts.benchmarks.start import "
        "time_first_step; print(json.dumps(time_first_step("
        f"{arguments.model!r}, Path({str(real_path(arguments.data_dir))!r}))))"
    )
    runs = []
    for _ in range(min(3, arguments.runs)):
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        runs.append(json.loads(result.stdout.splitlines()[-1]))
    return [
        {
            "what": f"a training's start: {part}",
            "median s": statistics.median(run[part] for run in runs),
            "fastest s": min(run[part] for run in runs),
        }
        for part in runs[0]
    ]


def _runs(command: Sequence[object]) -> Callable[[], object]:
    return lambda: subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, check=False
    )
