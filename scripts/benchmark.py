"""Measure what the documentation claims; each part prints a table and can write JSON.

python scripts/benchmark.py train --device cuda --batch-size 32
python scripts/benchmark.py metric --data-dir data
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse

from scripts.benchmarks import encoders, infer, metric, start, train
from src.errors import CommandParser, report_errors
from src.machine import wait_passively

PARTS = {"encoders": encoders, "infer": infer, "metric": metric, "start": start, "train": train}


def main() -> None:
    parser = CommandParser("Measure what the documentation claims.")
    parts = parser.add_subparsers(dest="part", required=True, parser_class=argparse.ArgumentParser)
    for name, module in PARTS.items():
        assert module.__doc__
        module.add_arguments(parts.add_parser(name, help=module.__doc__.split("\n")[0]))
    arguments = parser.parse_args()
    wait_passively()
    with report_errors():
        PARTS[arguments.part].run(arguments)


if __name__ == "__main__":
    main()
