"""Draw which boxes runs find and miss at one epoch, from their saved validation predictions.

`python src/visualizations/plot_detections.py output/a_fold_0 output/b_fold_0 --out pics/found.png`
writes pics/found_precision_recall.png (by score, at IoU .5) and pics/found_boxes.png (size and
place of found and true boxes: the evidence for shrinking), each with a PDF beside.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.metric import FloatArray
from src.prediction.presets import NMS_IOU, SCORE_FACTOR, Postprocess
from src.prediction.saved_epochs import saved_epochs
from src.scoring.matching import (
    MATCH_IOU,
    Matches,
    load_labelled,
    match_predictions,
    precision_recall,
)
from src.scoring.sweep import choose_epoch
from src.system.command_line import CommandParser, fraction, natural, number, report_errors
from src.system.errors import InputError
from src.visualizations.eda_labels import cover_shares
from src.visualizations.figures import (
    COLOUR_MAP,
    check_picture_path,
    clean,
    name_runs,
    new_figure,
    save_figure,
    style_of,
)

ROW_HEIGHT = 3.4  # of a run's row of panels, inches
N_LEVELS = 200  # of score, along a curve
PLACE_SIZE = 128  # side of a map of places, cells
RATIO_RANGE = (0.5, 2.0)  # what a box at IoU .5 can be, at most
N_RATIO_BINS = 27  # odd: the middle one holds 1


@dataclass(frozen=True, eq=False)
class RunDetections:
    """What a run found at one epoch.

    Attributes:
        name: of the run, with its epoch.
        matches: of all boxes that the suppression left.
        min_score: over which a box counts, where one setting is looked at.
    """

    name: str
    matches: Matches
    min_score: float


def plot_precision_recall(runs: Sequence[RunDetections]) -> Figure:
    """Compare runs: precision and recall by score, and against each other."""
    figure = new_figure(12, 3.8 + 0.25 * len(runs))
    panels = figure.subplots(1, 3)
    levels = np.linspace(0, 1, N_LEVELS, endpoint=False)
    for i, run in enumerate(runs):
        precision, recall = precision_recall(run.matches, levels)
        at_precision, at_recall = precision_recall(run.matches, np.array([run.min_score]))
        points = [
            (levels, precision, run.min_score, at_precision),
            (levels, recall, run.min_score, at_recall),
            (recall, precision, at_recall, at_precision),
        ]
        label = (
            f"{run.name}: precision {at_precision.item():.3f}, recall {at_recall.item():.3f} at "
            f"score × 5 > {run.min_score * SCORE_FACTOR:g}"
        )
        for axes, (x, y, at_x, at_y) in zip(panels, points, strict=True):
            axes.plot(x, y, label=label, **style_of(i))
            axes.plot(at_x, at_y, "o", color=style_of(i)["color"])
    titles = ("Precision", "Recall", "Precision against recall")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(xlim=(-0.02, 1.02), ylim=(0, 1.02))
        xlabel, ylabel = ("recall", "precision") if axes is panels[2] else ("score", title.lower())
        clean(axes, xlabel=xlabel, ylabel=ylabel, title=f"{title} at IoU {MATCH_IOU:g}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", frameon=False)
    return figure


def plot_boxes(runs: Sequence[RunDetections]) -> Figure:
    """Compare found boxes with true ones: sides, areas and places, a row for each run."""
    figure = new_figure(13, ROW_HEIGHT * len(runs))
    rows = figure.subfigures(len(runs), 1, squeeze=False)[:, 0]
    for row, run in zip(rows, runs, strict=True):
        row.suptitle(run.name, x=0.01, ha="left", fontsize="medium")
        ratios, areas, true_places, found_places = row.subplots(1, 4)
        matches = run.matches.above(run.min_score)
        _draw_ratios(ratios, matches)
        _draw_areas(areas, matches)
        _draw_places(true_places, found_places, matches)
    return figure


FIGURES: dict[str, Callable[[Sequence[RunDetections]], Figure]] = {
    "precision_recall": plot_precision_recall,
    "boxes": plot_boxes,
}


def load_detections(
    run_dir: Path, name: str, *, epoch: int | None, threshold: float | None, nms: float
) -> RunDetections:
    """Load and match what a run found.

    Args:
        epoch: None takes the best of scores.npz or, without it, the last one saved.
        threshold: on score x 5; None takes the best of scores.npz or, without it, .3.
        nms: a box is dropped when it overlaps a better one by more.

    Raises:
        InputError: no such epoch, or nothing found over the threshold where there is something to
            find.
    """
    choice = choose_epoch(run_dir / "scores.npz", saved_epochs(run_dir), epoch)
    if threshold is None:
        threshold = choice.fill(Postprocess(nms=nms)).threshold
    predictions = load_labelled(run_dir, choice.epoch)
    matches = match_predictions(predictions, nms=nms)
    min_score = threshold / SCORE_FACTOR
    top = matches.scores.max(initial=0.0)
    if top <= min_score and len(matches.true_boxes):
        raise InputError(
            f"{run_dir}: epoch {choice.epoch} found nothing with score x 5 over {threshold:g}; the "
            f"highest is {SCORE_FACTOR * top:.3g}"
        )
    return RunDetections(f"{name}, epoch {choice.epoch}", matches, min_score)


def _draw_ratios(axes: Axes, matches: Matches) -> None:
    """Draw how wide and how high hits are, over their true boxes."""
    edges = np.geomspace(*RATIO_RANGE, N_RATIO_BINS + 1).tolist()
    ratios = matches.side_ratios()
    for i, (side, values) in enumerate(zip(("width", "height"), ratios.T, strict=True)):
        colour = style_of(i)["color"]
        axes.hist(values, edges, histtype="step", color=colour, linewidth=1.5)
        if len(values):
            median = np.median(values)
            axes.axvline(median, ymax=0.8, color=colour, linestyle="--", linewidth=1)
            axes.text(0.02, 0.98 - 0.08 * i, f"{side}: median {median:.3f}", color=colour,
                      transform=axes.transAxes, va="top")  # fmt: skip
    axes.margins(y=0.25)  # room for the medians
    axes.set_xscale("log")
    axes.set_xticks([0.5, 0.7, 1, 1.4, 2], ["0.5", "0.7", "1", "1.4", "2"])
    axes.minorticks_off()
    title = f"{len(ratios):,} hits at IoU {MATCH_IOU:g}"
    clean(axes, xlabel="side of found box / true box", ylabel="hits", title=title)


def _draw_areas(axes: Axes, matches: Matches) -> None:
    """Draw the size of hits against that of their true boxes."""
    hits = matches.true_rows >= 0
    found = np.sqrt(matches.boxes[hits, 2:].prod(axis=1))
    true = np.sqrt(matches.true_boxes[matches.true_rows[hits], 2:].prod(axis=1))
    limit = 1.05 * max(found.max(initial=0.1), true.max(initial=0.1))
    axes.hexbin(true, found, gridsize=28, extent=(0, limit, 0, limit), mincnt=1, bins="log",
                cmap=COLOUR_MAP, linewidths=0.1)  # fmt: skip
    axes.plot([0, limit], [0, limit], color="black", linewidth=0.8)
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    clean(axes, xlabel="√area of true box / image side", ylabel="√area of found box",
          title="Size of hits (lighter: more)")  # fmt: skip


def _draw_places(true_axes: Axes, found_axes: Axes, matches: Matches) -> None:
    """Draw where true boxes lie and where found ones, on one scale of colours."""
    tables = [
        cover_shares(_in_cells(boxes), (PLACE_SIZE, PLACE_SIZE))
        for boxes in (matches.true_boxes, matches.boxes)
    ]
    top = max(table.max() for table in tables) or 1.0  # nothing is drawn at 0
    counts = (f"{len(matches.true_boxes):,} true boxes", f"{len(matches.boxes):,} found")
    for axes, table, title in zip((true_axes, found_axes), tables, counts, strict=True):
        image = axes.imshow(100 * table, cmap=COLOUR_MAP, vmin=0, vmax=100 * top)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(title, loc="left", fontsize="medium")
    colour_bar = true_axes.figure.colorbar(image, ax=[true_axes, found_axes], shrink=0.8, pad=0.02)
    colour_bar.set_label("% of the boxes over a point")


def _in_cells(boxes_xywh: FloatArray) -> FloatArray:
    """Cut boxes (N, 4) off at the image's edge, in whole cells of the map of places."""
    first, sides = boxes_xywh[:, :2], boxes_xywh[:, 2:]
    start, end = (np.rint(PLACE_SIZE * edge.clip(0, 1)) for edge in (first, first + sides))
    return np.concatenate([start, end - start], axis=1)


def main() -> None:
    parser = CommandParser("Draw which boxes runs find and miss at one epoch.")
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="folders of runs with predictions")
    add("--figures", nargs="+", choices=FIGURES, default=list(FIGURES), help="which to draw")
    add("--epoch", type=natural, help="by default each run's best of check_metric, or its last")
    add("--threshold", type=number, help="score x 5 over which a box counts; by default the best "
        "of check_metric, or 0.3")  # fmt: skip
    add("--nms", type=fraction, default=NMS_IOU, help="IoU over which the weaker of two boxes goes")
    add("--out", type=Path, default=Path("detections.png"), help="_<figure> is added to the name; "
        "PNG, a PDF beside")  # fmt: skip
    arguments = parser.parse_args()
    with report_errors():
        check_picture_path(arguments.out)
        runs = [
            load_detections(
                run_dir,
                name,
                epoch=arguments.epoch,
                threshold=arguments.threshold,
                nms=arguments.nms,
            )
            for run_dir, name in zip(arguments.runs, name_runs(arguments.runs), strict=True)
        ]
        for name in arguments.figures:
            path = arguments.out.with_name(f"{arguments.out.stem}_{name}.png")
            print(*save_figure(FIGURES[name](runs), path), sep="\n")


if __name__ == "__main__":
    main()
