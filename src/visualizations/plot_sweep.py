"""Draw the scores of one run as heat maps, the best one marked.

`python src/visualizations/plot_sweep.py output/a_fold_0 --out pics/sweep.png` shows what
src/scores.py saved: epoch by threshold, and NMS by threshold at the best epoch.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import math
from typing import TYPE_CHECKING, Any

from src.system.command_line import CommandParser, report_errors
from src.system.errors import InputError

if TYPE_CHECKING:  # `--help` waits for nothing
    from matplotlib.figure import Figure

    from src.metric import FloatArray
    from src.scoring.sweep import Sweep

GATE_LABELS = {
    "score": "threshold on score × 5",
    "score_category": "threshold on score × category × 10",
    "sqrt_score_category": "threshold on √(score × category) × 5",
}
MAX_WRITTEN_COLUMNS = 24  # more are too narrow for numbers


def table_at_best(sweep: Sweep, axis: str, best: dict[str, Any]) -> FloatArray:
    """Cut the sweep along one axis and the thresholds; all else is as in the best setting.

    Args:
        axis: one of `sweep.AXES` but "threshold".
        best: of `Sweep.best`.

    Returns:
        (values of the axis, thresholds) scores.
    """
    from src.scoring.sweep import AXES

    free = (axis, "threshold")
    cut = tuple(
        slice(None) if name in free else values.index(best[name])
        for name, values in zip(AXES, sweep.axes(), strict=True)
    )
    return sweep.scores[cut]


def plot_sweep(sweep: Sweep, title: str) -> Figure:
    """Show the score by epoch and threshold and, where there are several, by NMS and threshold."""
    from src.scoring.sweep import NEAR_BEST
    from src.visualizations.figures import draw_heat_map, new_figure

    best = sweep.best()
    panels: dict[str, tuple[float, ...]] = {"epoch": sweep.epochs}
    if len(sweep.nms) > 1:
        panels["nms"] = sweep.nms
    n_columns = len(sweep.thresholds)
    heights = [0.5 + 0.27 * len(values) for values in panels.values()]
    figure = new_figure(max(6.0, 2.2 + 0.48 * n_columns), 1.2 + sum(heights))
    figure.suptitle(
        f"{title}\nbest score {best['score']:.3f} (framed; bold: at most {NEAR_BEST:g} below), "
        f"boxes × {best['shrink']:g}",
        x=0.01, ha="left", fontsize="medium",
    )  # fmt: skip
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (axis, values) in zip(grid, panels.items(), strict=True):
        table = table_at_best(sweep, axis, best)
        image = draw_heat_map(
            axes,
            table,
            _write_out(table) if n_columns <= MAX_WRITTEN_COLUMNS else None,
            rows=[f"{value:g}" for value in values],
            columns=[f"{value:g}" for value in sweep.thresholds],
            mark=(values.index(best[axis]), sweep.thresholds.index(best["threshold"])),
            bold=table >= best["score"] - NEAR_BEST,
        )
        other = f"NMS {best['nms']:g}" if axis == "epoch" else f"epoch {best['epoch']}"
        axes.set_title(f"at {other}", loc="left", fontsize="medium")
        axes.set_ylabel("epoch" if axis == "epoch" else "NMS (IoU)")
        figure.colorbar(image, ax=axes, label="score", aspect=15, pad=0.01)
    grid[-1].set_xlabel(GATE_LABELS[best["gate"]])
    return figure


def _write_out(table: FloatArray) -> list[list[str]]:
    """Write scores as `.972`, those that do not exist as a dash."""
    return [
        ["–" if math.isnan(value) else f"{value:.3f}".removeprefix("0") for value in row]
        for row in table.tolist()
    ]


def main() -> None:
    parser = CommandParser("Draw the scores of one run as heat maps, the best one marked.")
    parser.add_argument("run", type=Path, help="folder of a run with sweep.npz")
    parser.add_argument("--out", type=Path, default=Path("sweep.png"), help="PNG; a PDF beside")
    arguments = parser.parse_args()
    with report_errors():
        path = arguments.run / "sweep.npz"
        if not path.exists():
            raise InputError(f"{path}: no such file; python src/scores.py {arguments.run} makes it")
        from src.scoring.sweep import load_sweep
        from src.visualizations.figures import name_runs, save_figure

        figure = plot_sweep(load_sweep(path), *name_runs([arguments.run]))
        print(*save_figure(figure, arguments.out), sep="\n")


if __name__ == "__main__":
    main()
