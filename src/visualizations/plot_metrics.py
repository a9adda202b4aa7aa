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
from typing import TYPE_CHECKING

import numpy as np

from src.errors import CommandParser, report_errors
from src.scores import Sweep, load_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_runs(names: Sequence[str], sweeps: Sequence[Sweep]) -> Figure:
    """Compare runs: score by epoch on the left, by threshold on the right."""
    from src.visualizations.figures import clean, new_figure, style_of

    figure = new_figure(10, 4)
    by_epoch, by_threshold = figure.subplots(1, 2)
    for i, (name, sweep) in enumerate(zip(names, sweeps, strict=True)):
        best = sweep.best()
        epoch = sweep.epochs.index(best["epoch"])
        others = tuple(range(1, sweep.scores.ndim))
        by_epoch.plot(sweep.epochs, np.nanmax(sweep.scores, axis=others), label=name, **style_of(i))
        best_by_threshold = np.nanmax(sweep.scores[epoch], axis=(0, 1, 2))
        label = f"{name}, epoch {best['epoch']}"
        by_threshold.plot(sweep.thresholds, best_by_threshold, label=label, **style_of(i))
    by_epoch.xaxis.get_major_locator().set_params(integer=True)
    clean(by_epoch, xlabel="epoch", ylabel="score", title="Best score of each epoch")
    by_threshold.set_xscale("log")
    clean(by_threshold, xlabel="score threshold (x 5)", ylabel="score", title="At the best epoch")
    for axes in (by_epoch, by_threshold):
        axes.legend(frameon=False, fontsize="small")
    return figure


def plot_heat_map(sweep: Sweep, title: str) -> Figure:
    """Show the score for every epoch and threshold, the best one marked."""
    from src.visualizations.figures import new_figure

    scores = np.nanmax(sweep.scores, axis=(1, 2, 3))  # (epochs, thresholds)
    n_epochs, n_thresholds = scores.shape
    figure = new_figure(2 + 0.5 * n_thresholds, 1.5 + 0.35 * n_epochs)
    axes = figure.subplots()
    image = axes.imshow(scores, cmap="cividis", aspect="auto")
    axes.set_xticks(range(n_thresholds), [f"{value:g}" for value in sweep.thresholds])
    axes.set_yticks(range(n_epochs), [str(epoch) for epoch in sweep.epochs])
    axes.set_xlabel("score threshold (x 5)")
    axes.set_ylabel("epoch")
    row, column = np.unravel_index(int(np.nanargmax(scores)), scores.shape)
    axes.plot(column, row, marker="o", markersize=14, markerfacecolor="none", color="#D55E00")
    axes.set_title(f"{title}: best {scores[row, column]:.3f}", loc="left", fontsize="medium")
    figure.colorbar(image, ax=axes, label="score")
    return figure


def main() -> None:
    parser = CommandParser("Draw the saved scores of several runs into one figure.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs with scores.npz")
    parser.add_argument("--out", type=Path, default=Path("metrics.png"), help="PNG; a PDF beside")
    arguments = parser.parse_args()
    with report_errors():
        sweeps = [load_sweep(run_dir / "scores.npz") for run_dir in arguments.runs]
        from src.visualizations.figures import save_figure

        figure = plot_runs([run_dir.resolve().name for run_dir in arguments.runs], sweeps)
        print(*save_figure(figure, arguments.out), sep="\n")


if __name__ == "__main__":
    main()
