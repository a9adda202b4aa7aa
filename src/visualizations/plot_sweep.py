"""Draw the scores of one run as heat maps, the best one marked.

`python src/visualizations/plot_sweep.py output/a_fold_0 --out pics/sweep.png` shows what
src/scores.py saved: epoch by threshold, and NMS by threshold at the best epoch. Of all folds of a
training it saves one sweep, in output/a_all_folds; plot_metrics.py compares runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import math
from collections.abc import Mapping

from matplotlib.figure import Figure

from src.metric import FloatArray
from src.prediction.presets import GATES
from src.scoring.sweep import AXES, NEAR_BEST, Sweep, load_sweep
from src.system.command_line import CommandParser, report_errors
from src.system.errors import InputError
from src.visualizations.figures import draw_heat_map, name_runs, new_figure, save_figure

MAX_WRITTEN_COLUMNS = 24  # more are too narrow for numbers


def table_at(sweep: Sweep, axis: str, place: Mapping[str, int]) -> FloatArray:
    """Cut the sweep along one axis and the thresholds; all else stays at one place.

    Args:
        axis: one of `sweep.AXES` but "threshold".
        place: index along each axis, of `Sweep.place_of`.

    Returns:
        (values of the axis, thresholds) scores.
    """
    free = (axis, "threshold")
    return sweep.scores[tuple(slice(None) if name in free else place[name] for name in AXES)]


def plot_sweep(sweep: Sweep, title: str) -> Figure:
    """Show the score by epoch and threshold and, where there are several, by NMS and threshold."""
    best = sweep.best()
    place = sweep.place_of(best)
    panels: dict[str, tuple[float, ...]] = {"epoch": sweep.epochs}
    if len(sweep.nms) > 1:
        panels["nms"] = sweep.nms
    n_columns = len(sweep.thresholds)
    heights = [0.5 + 0.27 * len(values) for values in panels.values()]
    figure = new_figure(max(6.0, 2.2 + 0.48 * n_columns), 1.2 + sum(heights))
    if best is None:
        found = f"no {'setting scores above 0' if sweep.has_true_boxes else 'true boxes'}"
    else:
        found = f"best score {best.score:.3f} (framed; bold: at most {NEAR_BEST:g} below)"
    shrink = f"boxes × {sweep.shrinks[place['shrink']]:g}"
    figure.suptitle(f"{title}\n{found}, {shrink}", x=0.01, ha="left", fontsize="medium")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (axis, values) in zip(grid, panels.items(), strict=True):
        table = table_at(sweep, axis, place)
        image = draw_heat_map(
            axes,
            table,
            _write_out(table) if n_columns <= MAX_WRITTEN_COLUMNS else None,
            rows=[f"{value:g}" for value in values],
            columns=[f"{value:g}" for value in sweep.thresholds],
            mark=None if best is None else (place[axis], place["threshold"]),
            bold=None if best is None else table >= best.score - NEAR_BEST,
        )
        other = f"NMS {sweep.nms[place['nms']]:g}"
        if axis != "epoch":
            other = f"epoch {sweep.epochs[place['epoch']]}"
        axes.set_title(f"at {other}", loc="left", fontsize="medium")
        axes.set_ylabel("epoch" if axis == "epoch" else "NMS (IoU)")
        figure.colorbar(image, ax=axes, label="score", aspect=15, pad=0.01)
    grid[-1].set_xlabel(f"threshold on {GATES[sweep.gates[place['gate']]].formula}")
    return figure


def _write_out(table: FloatArray) -> list[list[str]]:
    """Write scores as `.972`, those that do not exist as a dash."""
    return [
        ["–" if math.isnan(value) else f"{value:.3f}".removeprefix("0") for value in row]
        for row in table.tolist()
    ]


def main() -> None:
    parser = CommandParser("Draw the scores of one run as heat maps, the best one marked.")
    parser.add_argument("run", type=Path, help="folder of a run, or of all folds, with sweep.npz")
    parser.add_argument("--out", type=Path, default=Path("sweep.png"), help="PNG; a PDF beside")
    arguments = parser.parse_args()
    with report_errors():
        path = arguments.run / "sweep.npz"
        if not path.exists():
            raise InputError(f"{path}: no such file; python src/scores.py {arguments.run} makes it")
        figure = plot_sweep(load_sweep(path), *name_runs([arguments.run]))
        print(*save_figure(figure, arguments.out), sep="\n")


if __name__ == "__main__":
    main()
