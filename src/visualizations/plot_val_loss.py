"""Draw the validation curves of several runs into one figure (the kind of the paper's figure 3).

`python src/visualizations/plot_val_loss.py output/a_fold_0 output/b_fold_0 --loss regression`
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.experiments.history import read_history
from src.experiments.run_groups import load_groups
from src.structures import LOSS_NAMES
from src.system.command_line import CommandParser, report_errors
from src.visualizations.curves import Curve, add_average_flag, draw_curves, panel_height
from src.visualizations.figures import clean_by_epoch, new_figure, save_figure


def plot_losses(histories: Mapping[str, Sequence[pd.DataFrame]], losses: Sequence[str]) -> Figure:
    """Draw a panel for each loss, a line for each run or for runs that belong together.

    Args:
        histories: name of the line -> the histories of its runs, with `epoch` and `valid_<loss>`;
            a name without any takes a colour.
    """
    figure = new_figure(5.5 * len(losses), panel_height(len(histories)))
    panels = figure.subplots(1, len(losses), squeeze=False)[0]
    for axes, loss in zip(panels, losses, strict=True):
        draw_loss(axes, histories, loss)
    return figure


def draw_loss(axes: Axes, histories: Mapping[str, Sequence[pd.DataFrame]], loss: str) -> None:
    """Draw the panel of one loss."""
    curves = {}
    for name, own in histories.items():
        best = [history[f"valid_{loss}"].min() for history in own]
        what = "best" if len(own) == 1 else "mean best"
        label = f"{name} ({what} {sum(best) / len(best):.3f})" if best else name
        curves[label] = [
            Curve(history["epoch"].to_numpy(float), history[f"valid_{loss}"].to_numpy(float))
            for history in own
        ]
    draw_curves(axes, curves)
    title = f"Validation {loss.replace('_', ' ')}" + ("" if loss == "loss" else " loss")
    clean_by_epoch(axes, ylabel="loss", title=title)


def main() -> None:
    parser = CommandParser("Draw the validation curves of several runs into one figure.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument(
        "--loss", nargs="+", choices=LOSS_NAMES, default=["regression"], help="a panel for each"
    )
    add_average_flag(parser)
    parser.add_argument("--out", type=Path, default=Path("val_loss.png"), help="PNG; a PDF beside")
    arguments = parser.parse_args()
    with report_errors():
        columns = [f"valid_{loss}" for loss in arguments.loss]
        histories = {
            group.name: [read_history(run.run_dir / "history.csv", columns) for run in group.runs]
            for group in load_groups(arguments.runs, arguments.average_over)
        }
        print(*save_figure(plot_losses(histories, arguments.loss), arguments.out), sep="\n")


if __name__ == "__main__":
    main()
