"""Measure what the documentation claims; each part prints a table and can write JSON.

python scripts/benchmark.py encoders --device cpu --plot docs/encoders.png
python scripts/benchmark.py metric --data-dir data
python scripts/benchmark.py data --data-dir data
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse

from scripts.benchmarks import data, encoders, metric
from src.errors import CommandParser, report_errors
from src.threads import wait_passively

PARTS = {"data": data, "encoders": encoders, "metric": metric}


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
