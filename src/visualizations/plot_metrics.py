"""Draw the saved scores of several runs into one figure.

`python src/visualizations/plot_metrics.py output/a_fold_0 output/b_fold_0 --out pics/metrics.png`
shows the best score of every epoch, and the score against the threshold at each run's best epoch.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from src.scoring.sweep import Sweep, load_sweep
from src.system.command_line import CommandParser, report_errors
from src.visualizations.figures import clean, name_runs, new_figure, save_figure, style_of


def plot_runs(names: Sequence[str], sweeps: Sequence[Sweep]) -> Figure:
    """Compare runs: score by epoch on the left, by threshold on the right."""
    figure = new_figure(10, 4)
    by_epoch, by_threshold = figure.subplots(1, 2)
    for i, (name, sweep) in enumerate(zip(names, sweeps, strict=True)):
        epoch = sweep.place_of(sweep.best())["epoch"]
        others = tuple(range(1, sweep.scores.ndim))
        # fmax passes over scores that do not exist, and says nothing where there is none.
        best_by_epoch = np.fmax.reduce(sweep.scores, axis=others)
        by_epoch.plot(sweep.epochs, best_by_epoch, label=name, **style_of(i))
        best_by_threshold = np.fmax.reduce(sweep.scores[epoch], axis=(0, 1, 2))
        label = f"{name}, epoch {sweep.epochs[epoch]}"
        by_threshold.plot(sweep.thresholds, best_by_threshold, label=label, **style_of(i))
    by_epoch.xaxis.get_major_locator().set_params(integer=True)
    clean(by_epoch, xlabel="epoch", ylabel="score", title="Best score of each epoch")
    by_threshold.set_xscale("log")
    by_threshold.xaxis.set_major_formatter("{x:g}")
    clean(by_threshold, xlabel="threshold on score × 5", ylabel="score", title="At the best epoch")
    for axes in (by_epoch, by_threshold):
        axes.legend(frameon=False, fontsize="small")
    return figure


def main() -> None:
    parser = CommandParser("Draw the saved scores of several runs into one figure.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs with scores.npz")
    parser.add_argument("--out", type=Path, default=Path("metrics.png"), help="PNG; a PDF beside")
    arguments = parser.parse_args()
    with report_errors():
        sweeps = [load_sweep(run_dir / "scores.npz") for run_dir in arguments.runs]
        figure = plot_runs(name_runs(arguments.runs), sweeps)
        print(*save_figure(figure, arguments.out), sep="\n")


if __name__ == "__main__":
    main()
