"""Train many experiments, folds, seeds and settings: one training on each GPU, until all are done.

python scripts/run_experiments.py --model resnet50_512 xception_512_dr --folds 0 1 2 3
python scripts/run_experiments.py --plan plan.toml --dry-run
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import shlex
from collections.abc import Iterator, Sequence

import config
from scripts.experiment_queue.forecast import Forecast
from scripts.experiment_queue.jobs import Job, make_jobs
from scripts.experiment_queue.plan import Grid, read_plan
from scripts.experiment_queue.scheduler import Scheduler
from scripts.experiment_queue.slots import find_gpus, make_slots
from src.datasets.data_folder import DataFolder
from src.experiments.changes import read_changes
from src.structures import MAX_FOLDS
from src.system.command_line import (
    CommandParser,
    above_zero,
    below,
    name_part,
    natural,
    positive,
    report_errors,
)
from src.system.errors import InputError
from src.system.files import check_place
from src.system.streams import tell

EXIT_NOT_DONE = 1


def main() -> None:
    """Run the command line."""
    arguments = _parse_arguments()
    with report_errors():
        jobs = make_jobs(
            _grids(arguments), data_dir=arguments.data_dir, output_dir=arguments.output_dir
        )
        if arguments.job is not None:
            jobs = [_pick(jobs, arguments.job)]
        if arguments.list_runs:
            print(*(job.run.dir for job in jobs), sep="\n")
            return
        slots = make_slots(arguments.jobs, find_gpus())
        forecast = _forecast(jobs, len(slots), arguments.epoch_minutes)
        if arguments.dry_run:
            print(f"# {len(jobs)} trainings, {forecast}", *_commands(jobs), sep="\n")
            return
        DataFolder(arguments.data_dir).images_dir("train")  # else each training would say so
        check_place(arguments.output_dir)
        print(f"{len(jobs)} trainings, {forecast}", flush=True)
        Scheduler(jobs, slots, forecast).run()
        left = [job.run.name for job in jobs if not job.is_done()]
        print(f"{len(jobs) - len(left)} of {len(jobs)} trainings are done")
    if left:
        tell(f"not done: {', '.join(left)}")
        sys.exit(EXIT_NOT_DONE)


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser(
        "Train many experiments, folds, seeds and settings, each as an ordinary command. What is "
        "done is left alone, what was stopped goes on.",
        usage="%(prog)s (--plan FILE ... | --model MODEL ...) [options] [-- FLAG ...]",
    )
    add = parser.add_argument
    add("--plan", type=Path, nargs="+", help="TOML files that say what is trained")
    add("--model", nargs="+", help="experiments, in place of a plan")
    add("--folds", type=below(MAX_FOLDS), nargs="+", default=[0], help="of every --model")
    add("--seeds", type=natural, nargs="+", default=[], help="of every --model and fold; each "
        "makes a run of its own")  # fmt: skip
    add("--set", nargs="+", action="append", metavar="FIELD=VALUE", help="change settings of every "
        "experiment; given again, train them again with other settings")  # fmt: skip
    add("--run", type=name_part, default="", metavar="TAG", help="tells these runs apart from "
        "others")  # fmt: skip
    add("flags", nargs="*", metavar="FLAG", help="behind --: more flags of every training")
    add("--data-dir", type=Path, default=config.DATA_DIR, help="the challenge's unpacked archive")
    add("--output-dir", type=Path, default=config.OUTPUT_DIR, help="folder of all runs")
    add("--jobs", type=positive, help="trainings that run side by side (default: one for each GPU)")
    add("--job", type=natural, help="run this one alone, counted from 0")
    add("--dry-run", action="store_true", help="print the commands and stop")
    add("--list-runs", action="store_true", help="print the folders of the runs and stop")
    add("--epoch-minutes", type=above_zero, help="expected time of an epoch, for the time that is "
        "left before one is measured")  # fmt: skip
    arguments = parser.parse_args()
    if (arguments.plan is None) == (arguments.model is None):
        parser.error("give either --plan or --model")
    for name in ("folds", "seeds"):
        if arguments.plan is not None and getattr(arguments, name) != parser.get_default(name):
            parser.error(f"--plan cannot be combined with --{name}: the plan names them")
    return arguments


def _grids(arguments: argparse.Namespace) -> Iterator[Grid]:
    """Yield what is trained: the plan or the grid of the flags, with each --set."""
    if arguments.plan is not None:
        grids = [grid for path in arguments.plan for grid in read_plan(path)]
    else:
        model, folds, seeds = map(tuple, (arguments.model, arguments.folds, arguments.seeds))
        grids = [Grid(model=model, folds=folds, seeds=seeds)]
    for words in arguments.set or [[]]:
        for grid in grids:
            yield grid.changed(arguments.run, read_changes(words), arguments.flags)


def _pick(jobs: Sequence[Job], number: int) -> Job:
    if number >= len(jobs):
        raise InputError(f"--job {number}: there are {len(jobs)} trainings, from 0")
    return jobs[number]


def _forecast(jobs: Sequence[Job], n_slots: int, epoch_minutes: float | None) -> Forecast:
    forecast = Forecast(n_slots, None if epoch_minutes is None else 60 * epoch_minutes)
    for job in jobs:
        try:
            forecast.epochs_left[job.run] = job.find_progress().n_left
        except InputError:  # said when it is its turn
            continue
    return forecast


def _commands(jobs: Sequence[Job]) -> Iterator[str]:
    """Yield what is left to do as lines of a shell script."""
    for number, job in enumerate(jobs):
        try:
            commands = job.commands_left()
        except InputError as error:
            yield f"# {number} {error}"
            continue
        yield f"# {number} {job.run.name}: {job.find_progress()}"
        yield from map(shlex.join, commands)


if __name__ == "__main__":
    main()
