"""Draw the curves behind the numbers that papers quote, of runs at their best epochs.

`python src/visualizations/plot_numbers.py output/a_fold_0 output/b_fold_0 --out pics/numbers.png`
shows precision over recall, FROC, ROC and reliability, with average precision, mean sensitivity,
AUROC and calibration error and their intervals; the values are those of `src/scores.py --numbers`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from collections.abc import Sequence

from matplotlib.figure import Figure

from src.prediction.saved_epochs import saved_epochs
from src.scoring.matching import load_labelled
from src.scoring.quoted_numbers import N_DRAWS
from src.scoring.sweep import choose_epoch
from src.system.command_line import CommandParser, natural, report_errors
from src.visualizations.figures import check_picture_path, name_runs, new_figure, save_figure
from src.visualizations.number_panels import PANELS, draw_panel, handle
from src.visualizations.run_numbers import (
    HEAD,
    ROC_SCORES,
    RunNumbers,
    describe_ranking,
    run_numbers,
)

ROC_CHOICES = {"head": HEAD, "box": "best box", "both": "both"}  # as they are called by a flag
ROW_HEIGHT = 0.9  # that a run's lines of text take, inches


def plot_numbers(runs: Sequence[RunNumbers]) -> Figure:
    """Compare runs: precision over recall, FROC, ROC, reliability."""
    figure = new_figure(11, 9 + ROW_HEIGHT * len(runs))
    figure.set_layout_engine("constrained", h_pad=0.12, w_pad=0.12)
    for axes, panel in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        draw_panel(axes, panel, runs)
        axes.set_title(panel.title, loc="left", fontsize="medium")
    figure.legend(
        handles=[handle(run, i) for i, run in enumerate(runs)],
        title=_describe_intervals(runs[0].n_draws),
        alignment="left",
        loc="outside upper left",
        frameon=False,
    )
    return figure


def load_numbers(
    run_dir: Path,
    name: str,
    *,
    epoch: int | None,
    n_draws: int,
    roc_scores: Sequence[str] = ROC_SCORES,
) -> RunNumbers:
    """Load what a run found, and compute the numbers.

    Args:
        epoch: None takes the best of scores.npz or, without it, the last one saved.
        n_draws: of images, for the intervals.
        roc_scores: the image scores whose ROC curves are drawn.

    Raises:
        InputError: no such epoch, or its truth is not known.
    """
    choice = choose_epoch(run_dir / "scores.npz", saved_epochs(run_dir), epoch)
    postprocess = choice.postprocess
    name = f"{name}, epoch {choice.epoch}: {describe_ranking(postprocess)}"
    predictions = load_labelled(run_dir, choice.epoch)
    return run_numbers(name, predictions, postprocess, n_draws, roc_scores)


def _describe_intervals(n_draws: int) -> str:
    if n_draws == 0:
        return "Validation images; values without intervals"
    return f"Validation images; values with 95 % intervals by {n_draws:,} draws of patients"


def main() -> None:
    parser = CommandParser("Draw the curves behind the numbers that papers quote.")
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="folders of runs with predictions")
    add("--epoch", type=natural, help="by default each run's best of check_metric, or its last")
    add("--draws", type=natural, default=N_DRAWS, help="of images, for the intervals; 0 for none")
    add("--roc", nargs="+", choices=ROC_CHOICES, default=list(ROC_CHOICES), help="which scores of "
        "an image the ROC curves are of; with many runs one is easier to read")  # fmt: skip
    add("--out", type=Path, default=Path("numbers.png"), help="PNG; a PDF beside")
    arguments = parser.parse_args()
    with report_errors():
        check_picture_path(arguments.out)
        runs = [
            load_numbers(
                run_dir,
                name,
                epoch=arguments.epoch,
                n_draws=arguments.draws,
                roc_scores=[ROC_CHOICES[key] for key in dict.fromkeys(arguments.roc)],
            )
            for run_dir, name in zip(arguments.runs, name_runs(arguments.runs), strict=True)
        ]
        print(*save_figure(plot_numbers(runs), arguments.out), sep="\n")


if __name__ == "__main__":
    main()
