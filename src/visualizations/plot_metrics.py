"""Draw the saved scores of several runs into one figure.

`python src/visualizations/plot_metrics.py output/a_fold_0 output/b_fold_0 --out pics/metrics.png`
shows the best score of every epoch, and the score against the threshold at each run's best epoch.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.experiments.run_groups import load_groups
from src.scoring.sweep import Sweep, load_sweep
from src.system.command_line import CommandParser, report_errors
from src.visualizations.curves import Curve, add_average_flag, draw_curves, panel_height
from src.visualizations.figures import clean, clean_by_epoch, new_figure, save_figure


def plot_runs(sweeps: Mapping[str, Sequence[Sweep]]) -> Figure:
    """Compare runs: score by epoch on the left, by threshold on the right.

    Args:
        sweeps: name of the line -> the scores of its run, or of runs that belong together;
            a name without any takes a colour.
    """
    figure = new_figure(10, panel_height(len(sweeps)))
    by_epoch, by_threshold = figure.subplots(1, 2)
    draw_by_epoch(by_epoch, sweeps)
    draw_by_threshold(by_threshold, sweeps)
    return figure


def draw_by_epoch(axes: Axes, sweeps: Mapping[str, Sequence[Sweep]]) -> None:
    """Draw the best score of every epoch."""
    draw_curves(axes, {name: list(map(_by_epoch, own)) for name, own in sweeps.items()})
    clean_by_epoch(axes, ylabel="score", title="Best score of each epoch")


def draw_by_threshold(axes: Axes, sweeps: Mapping[str, Sequence[Sweep]]) -> None:
    """Draw the best score of every threshold, each run's at its best epoch."""
    curves = {}
    for name, own in sweeps.items():
        epochs = [sweep.epochs[_best_place(sweep)] for sweep in own]
        which = [f", epoch {epoch}" for epoch in epochs]
        if len(set(epochs)) > 1:
            which = [f", epochs {min(epochs)} to {max(epochs)}"]
        curves["".join([name, *which[:1]])] = list(map(_by_threshold, own))
    draw_curves(axes, curves)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    clean(axes, xlabel="threshold on score × 5", ylabel="score", title="At the best epoch")


def _by_epoch(sweep: Sweep) -> Curve:
    others = tuple(range(1, sweep.scores.ndim))
    # fmax passes over scores that do not exist, and says nothing where there is none.
    return Curve(np.array(sweep.epochs, float), np.fmax.reduce(sweep.scores, axis=others))


def _by_threshold(sweep: Sweep) -> Curve:
    scores = np.fmax.reduce(sweep.scores[_best_place(sweep)], axis=(0, 1, 2))
    return Curve(np.array(sweep.thresholds), scores)


def _best_place(sweep: Sweep) -> int:
    return sweep.place_of(sweep.best())["epoch"]


def main() -> None:
    parser = CommandParser("Draw the saved scores of several runs into one figure.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs with scores.npz")
    add_average_flag(parser)
    parser.add_argument("--out", type=Path, default=Path("metrics.png"), help="PNG; a PDF beside")
    arguments = parser.parse_args()
    with report_errors():
        sweeps = {
            group.name: [load_sweep(run.run_dir / "scores.npz") for run in group.runs]
            for group in load_groups(arguments.runs, arguments.average_over)
        }
        print(*save_figure(plot_runs(sweeps), arguments.out), sep="\n")


if __name__ == "__main__":
    main()
