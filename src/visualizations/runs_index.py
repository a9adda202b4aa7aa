"""Compare any number of runs: a table of what differs and what came of it, curves, an index.

`python src/visualizations/runs_index.py output --out output/index` takes every run below a folder,
or runs by their folders, and writes runs.csv, run_groups.csv and index.html, a page that needs no
other file and links the runs' reports; `--reports` makes those.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import os
from urllib.parse import quote

import config
from src.experiments.run_facts import find_runs, read_run_facts
from src.experiments.run_groups import distinct_names
from src.experiments.runs import numbered_files
from src.scoring.run_results import read_result
from src.scoring.run_tables import (
    RunRow,
    group_columns,
    group_rows,
    is_unknown,
    run_columns,
    write_columns,
)
from src.system.command_line import CommandParser, report_errors
from src.system.files import check_file_place, real_path, write_text
from src.visualizations.curves import add_average_flag
from src.visualizations.report import REPORT, save_report
from src.visualizations.runs_page import build_page

RUNS, GROUPS, INDEX = "runs.csv", "run_groups.csv", "index.html"


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser("Compare runs: what differs, what came of it, curves, an index.")
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, or folders with runs "
        "somewhere below")  # fmt: skip
    add("--out", type=Path, help="folder for the tables and the page; default: output/index")
    add_average_flag(parser)
    add("--reports", action="store_true", help="make the report.html of every run with predictions")
    add("--data-dir", type=Path, help="where the images of the reports lie; by default where they "
        "lay when the run was trained")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.data_dir is not None and not arguments.reports:
        parser.error("--data-dir needs --reports")
    return arguments


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        out = arguments.out or config.OUTPUT_DIR / "index"
        for name in (RUNS, GROUPS, INDEX):
            check_file_place(out / name)
        run_dirs = find_runs(arguments.runs)
        runs = []
        for name, run_dir in zip(distinct_names(run_dirs), run_dirs, strict=True):
            runs.append(RunRow(name, read_run_facts(run_dir), read_result(run_dir)))
            print(_describe(runs[-1]), flush=True)
        groups = group_rows(runs, arguments.average_over)
        write_columns(out / RUNS, run_columns(runs))
        write_columns(out / GROUPS, group_columns(groups))
        for run_dir in run_dirs if arguments.reports else ():
            if numbered_files(run_dir / "predictions", ".npz"):
                print(save_report(run_dir, arguments.data_dir), flush=True)
        write_text(out / INDEX, build_page(runs, groups, [_link(out, each) for each in run_dirs]))
        print(*(out / name for name in (RUNS, GROUPS, INDEX)), sep="\n")


def _describe(run: RunRow) -> str:
    """Say in a line what came of a run."""
    score, honest = run.result.score, run.result.honest_score
    if is_unknown(score):
        return f"{run.name}: no score"
    text = f"{run.name}: epoch {run.result.epoch}, score {score.value:.4f}"
    return text if is_unknown(honest) else f"{text}, honest score {honest.value:.4f}"


def _link(out: Path, run_dir: Path) -> str | None:
    """Return the address of a run's report as seen from the page, None where there is none."""
    path = run_dir / REPORT
    if not path.is_file():
        return None
    way = Path(os.path.relpath(real_path(path), real_path(out)))
    return quote(os.fsencode(way.as_posix()))


if __name__ == "__main__":
    main()
