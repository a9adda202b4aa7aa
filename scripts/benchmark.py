"""Measure what the documentation claims; each part prints a table and can write JSON.

python scripts/benchmark.py train --device cuda --batch-size 32
python scripts/benchmark.py metric --data-dir data
python scripts/benchmark.py all --data-dir data
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import importlib

from src.system.command_line import CommandParser, report_errors
from src.system.processes import wait_passively

PARTS = {
    "data": "a training sample, from file and cache, and images a second of the loader",
    "train": "a training step, plain and with each means that makes it faster",
    "infer": "inference, plain and with each means that makes it faster",
    "epoch": "a whole epoch end to end: loader, training, validation, prediction, score",
    "learn": "what networks have learned after the same processor seconds",
    "growth": "how cost grows with image size, batch, images and boxes",
    "start": "commands, checkpoints and the way to a training's first step",
    "metric": "the challenge's score over a grid of thresholds",
    "levels": "where a data set's boxes need the box head",
    "encodings": "a run's score on the same radiographs in other files: 12 bits, windows, LUTs",
    "encoders": "size, arithmetic, speed and memory of every network",
}
NEED_DATA = (
    "data",
    "epoch",
    "start",
    "metric",
    "levels",
    "encodings",
    "learn",
)  # they take --data-dir
ALL = ("data", "train", "infer", "epoch", "growth", "start", "metric")


def main() -> None:
    """Run one part, or those of `ALL` with their default flags."""
    listing = "; ".join(f"{name}: {text}" for name, text in PARTS.items())
    parser = CommandParser(f"Measure what the documentation claims. {listing}. "
                           f"Each has flags of its own: PART --help.")  # fmt: skip
    parser.add_argument("part", choices=(*PARTS, "all"))
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        parser.parse_args()
    part = parser.parse_args(sys.argv[1:2]).part
    wait_passively()
    with report_errors():
        if part != "all":
            run_part(part, sys.argv[2:])
            return
        for name in ALL:
            print(f"\n== {name}: {PARTS[name]}", flush=True)
            run_part(name, sys.argv[2:] if name in NEED_DATA else [])


def run_part(name: str, flags: list[str]) -> None:
    """Import what a part needs, read its flags, and run it."""
    module = importlib.import_module(f"scripts.benchmarks.{name}")
    parser = CommandParser(f"Measure {PARTS[name]}.", prog=f"benchmark.py {name}")
    module.add_arguments(parser)
    module.run(parser.parse_args(flags))


if __name__ == "__main__":
    main()
