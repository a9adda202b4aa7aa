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
from matplotlib.figure import Figure

from src.experiments.history import read_history
from src.structures import LOSS_NAMES
from src.system.command_line import CommandParser, report_errors
from src.visualizations.figures import clean, name_runs, new_figure, save_figure, style_of


def plot_losses(histories: Mapping[str, pd.DataFrame], losses: Sequence[str]) -> Figure:
    """Draw a panel for each loss, a line for each run.

    Args:
        histories: name of a run -> its history, with `epoch` and `valid_<loss>`.
    """
    figure = new_figure(5.5 * len(losses), 4)
    panels = figure.subplots(1, len(losses), squeeze=False)[0]
    for axes, loss in zip(panels, losses, strict=True):
        for i, (name, history) in enumerate(histories.items()):
            values = history[f"valid_{loss}"]
            label = f"{name} (best {values.min():.3f})"
            axes.plot(history["epoch"], values, label=label, **style_of(i))
        axes.xaxis.get_major_locator().set_params(integer=True)
        title = f"Validation {loss.replace('_', ' ')}" + ("" if loss == "loss" else " loss")
        clean(axes, xlabel="epoch", ylabel="loss", title=title)
        axes.legend(frameon=False, fontsize="small")
    return figure


def main() -> None:
    parser = CommandParser("Draw the validation curves of several runs into one figure.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument(
        "--loss", nargs="+", choices=LOSS_NAMES, default=["regression"], help="a panel for each"
    )
    parser.add_argument("--out", type=Path, default=Path("val_loss.png"), help="PNG; a PDF beside")
    arguments = parser.parse_args()
    with report_errors():
        columns = [f"valid_{loss}" for loss in arguments.loss]
        histories = {
            name: read_history(run_dir / "history.csv", columns)
            for name, run_dir in zip(name_runs(arguments.runs), arguments.runs, strict=True)
        }
        print(*save_figure(plot_losses(histories, arguments.loss), arguments.out), sep="\n")


if __name__ == "__main__":
    main()
