"""Draw what the whole-image head of runs takes for what, and how sure it may be.

`python src/visualizations/plot_global_head.py output/a_fold_0 --out pics/global_head.png` shows
the confusion of the three classes and the calibration of their probabilities at one epoch.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.metric import FloatArray, IntArray
from src.prediction.predictions import Predictions
from src.prediction.saved_epochs import saved_epochs
from src.scoring.calibration import class_reliabilities, count_confusions
from src.scoring.matching import load_labelled
from src.scoring.sweep import choose_epoch
from src.structures import CLASS_NAMES
from src.system.command_line import CommandParser, natural, report_errors
from src.visualizations.eda_labels import SHOWN_ORDER
from src.visualizations.figures import (
    COLOURS,
    clean,
    draw_heat_map,
    name_runs,
    new_figure,
    save_figure,
)

MARKERS = ("^", "o", "s")  # of the classes, beside their colours
ROW_HEIGHT = 4.0  # of a run's panels, inches


def plot_global_head(runs: Mapping[str, Predictions]) -> Figure:
    """Draw confusion and calibration, a row for each run.

    Args:
        runs: name -> predictions with truth.
    """
    figure = new_figure(9.5, ROW_HEIGHT * len(runs))
    rows = figure.subfigures(len(runs), 1, squeeze=False)[:, 0]
    for row, (name, predictions) in zip(rows, runs.items(), strict=True):
        row.suptitle(name, x=0.01, ha="left", fontsize="medium")
        confusion, calibration = row.subplots(1, 2)
        probs = predictions.class_probs.astype(np.float64)
        _draw_confusion(confusion, predictions.true_categories, probs)
        _draw_calibration(calibration, predictions.true_categories, probs)
    return figure


def _draw_confusion(axes: Axes, true_categories: IntArray, class_probs: FloatArray) -> None:
    """Draw counts, coloured by their share of the true class."""
    counts = count_confusions(true_categories, class_probs)[np.ix_(SHOWN_ORDER, SHOWN_ORDER)]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    texts = [
        [f"{count:,.0f}\n{'–' if np.isnan(share) else f'{share:.1%}'}" for count, share in row]
        for row in np.stack([counts, shares], axis=-1)
    ]
    names = [CLASS_NAMES[category].replace(" / ", " /\n") for category in SHOWN_ORDER]
    draw_heat_map(axes, shares, texts, rows=names, columns=names, limits=(0, 1))
    axes.tick_params(labelsize="small")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right = counts.trace() / counts.sum()
    axes.set_title(f"{right:.1%} of {counts.sum():,} images right", loc="left", fontsize="medium")


def _draw_calibration(axes: Axes, true_categories: IntArray, class_probs: FloatArray) -> None:
    """Draw how often each class is true, by its probability, and the expected calibration error."""
    of_classes, top = class_reliabilities(true_categories, class_probs)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for category in SHOWN_ORDER:
        curve = of_classes[category]
        label = f"{CLASS_NAMES[category]}: error {curve.error:.3f}"
        colour = COLOURS[category]
        filled = curve.counts > 0
        axes.plot(curve.probs[filled], curve.shares[filled], color=colour, linewidth=1)
        sizes = 8 + 120 * np.sqrt(curve.counts / curve.counts.sum())
        axes.scatter(curve.probs, curve.shares, sizes, color=colour, marker=MARKERS[category],
                     label=label)  # fmt: skip
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.3))  # room for the legend
    axes.set_yticks(np.linspace(0, 1, 6))
    title = f"expected calibration error {top.error:.3f}"
    xlabel = "probability of a class (larger points: more images)"
    clean(axes, xlabel=xlabel, ylabel="share of the images of it", title=title)
    axes.legend(frameon=False, fontsize="small", loc="upper left")


def main() -> None:
    parser = CommandParser("Draw what the whole-image head of runs takes for what.")
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="folders of runs with predictions")
    add("--epoch", type=natural, help="by default each run's best of check_metric, or its last")
    add("--out", type=Path, default=Path("global_head.png"), help="PNG; a PDF beside")
    arguments = parser.parse_args()
    with report_errors():
        runs = {}
        for run_dir, name in zip(arguments.runs, name_runs(arguments.runs), strict=True):
            saved = saved_epochs(run_dir)
            epoch = choose_epoch(run_dir / "scores.npz", saved, arguments.epoch).epoch
            runs[f"{name}, epoch {epoch}"] = load_labelled(run_dir, epoch)
        print(*save_figure(plot_global_head(runs), arguments.out), sep="\n")


if __name__ == "__main__":
    main()
