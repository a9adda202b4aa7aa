"""The curves behind the numbers that papers quote, a panel for each; `PANELS` lists them.

A run is a colour and a marker, which is told apart in grey print too; in the panel that has several
curves of a run, an image score is a dash.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from src.scoring.average_precision import RECALL_LEVELS, precision_at_recall
from src.scoring.calibration import N_BINS, reliability
from src.scoring.froc import FALSE_POSITIVES, froc_curve
from src.scoring.image_level import DrawnImages, roc_curve
from src.visualizations.figures import COLOURS, LINE_STYLES, clean
from src.visualizations.run_numbers import HEAD, RunNumbers, in_digits

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # one more than colours: pairs repeat late
LOWEST_SHOWN = 0.09  # false positives an image, the left end of an axis that has no 0
LEGEND_WIDTH = 66  # letters of a line below a panel
ROW_OF_COUNTS = 0.085  # of the height that a probability of 1 has
NO_WEAK = (
    "Saved without weaker boxes, which this needs; generate_predictions --overwrite saves them."
)


class Panel(NamedTuple):
    """One kind of curve.

    Attributes:
        title: what it is.
        reading: tells a reader in a sentence how to read it.
        frame: prepares empty axes for a number of runs.
        why_not: says why a run has no such curve, "" where it has one.
        draw: draws the curve of the i-th run, with its numbers as labels.
    """

    title: str
    reading: str
    frame: Callable[[Axes, int], None]
    why_not: Callable[[RunNumbers], str]
    draw: Callable[[Axes, RunNumbers, int], None]


def draw_panel(axes: Axes, panel: Panel, runs: Sequence[RunNumbers]) -> None:
    """Draw a panel's curves, their numbers below it, and where there are none the reasons."""
    panel.frame(axes, len(runs))
    reasons = [panel.why_not(run) for run in runs]
    for i, (run, reason) in enumerate(zip(runs, reasons, strict=True)):
        if not reason:
            panel.draw(axes, run, i)
        elif not all(reasons):
            axes.plot([], [], label=textwrap.fill(f"No curve. {reason}", LEGEND_WIDTH), **mark(i))
    if all(reasons):
        text = "\n".join(textwrap.fill(reason, 40) for reason in dict.fromkeys(reasons))
        axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    else:
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.13), frameon=False,
                    fontsize="small", handlelength=3.2)  # fmt: skip


def handle(run: RunNumbers, i: int) -> Line2D:
    """Return what stands for the i-th run in a legend of runs."""
    return Line2D([], [], label=run.name, **mark(i))


def mark(i: int) -> dict[str, Any]:
    """Return colour and marker of the i-th run."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)],
            "markersize": 5, "linewidth": 1.4}  # fmt: skip


def _why_no_boxes(run: RunNumbers) -> str:
    if not run.data.is_complete:
        return NO_WEAK
    return "" if run.data.has_opacity.any() else "No image has true boxes."


def _why_no_roc(run: RunNumbers) -> str:
    if not run.data.has_opacity.any():
        return "No image has an opacity."
    return "Every image has an opacity." if run.data.has_opacity.all() else ""


def _frame_precision(axes: Axes, _: int) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(0, 1.03))
    clean(axes, xlabel="recall", ylabel="precision")


def _draw_precision(axes: Axes, run: RunNumbers, i: int) -> None:
    (precision,) = precision_at_recall(run.boxes, 0.5)
    n_shown = np.count_nonzero(precision) + 1  # down to the recall that is not reached
    label = f"AP at IoU .50: {in_digits(run.result('ap_50'))}"
    axes.plot(RECALL_LEVELS[:n_shown], precision[:n_shown], drawstyle="steps-pre",
              markevery=_spread(i, 20), label=label, **mark(i))  # fmt: skip


def _frame_froc(axes: Axes, _: int) -> None:
    axes.set_xscale("log")
    axes.set(xlim=(LOWEST_SHOWN, 11), ylim=(0, 1.03))
    axes.set_xticks(FALSE_POSITIVES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.minorticks_off()
    clean(
        axes,
        xlabel="false positives an image (hollow: beyond the last saved box)",
        ylabel="sensitivity at IoU 0.40",
    )


def _draw_froc(axes: Axes, run: RunNumbers, i: int) -> None:
    """Draw the curve down to the last saved box, and the points that the mean is taken of.

    Points further right are those of the curve's end: they are hollow.
    """
    (false_positives,), (sensitivity,) = froc_curve(run.boxes)
    reached = run.result("froc_reached").value
    x = np.concatenate([[0.0], false_positives, [reached]]).clip(LOWEST_SHOWN / 2)
    y = np.concatenate([[0.0], sensitivity, sensitivity[-1:] if len(sensitivity) else [0.0]])
    style = mark(i)
    marker = style.pop("marker")
    axes.plot(x, y, drawstyle="steps-post", **style)
    for level in FALSE_POSITIVES:
        is_beyond = level > reached
        axes.plot(level, run.result(f"froc_{level:g}").value, marker=marker, linestyle="",
                  color=style["color"], markersize=6, fillstyle="none" if is_beyond else "full",
                  clip_on=False)  # fmt: skip
    axes.plot([], [], label=f"mean sensitivity: {in_digits(run.result('froc'))}", **mark(i))


def _frame_roc(axes: Axes, _: int) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
    clean(axes, xlabel="1 − specificity", ylabel="sensitivity")


def _draw_roc(axes: Axes, run: RunNumbers, i: int) -> None:
    for score, dash in zip(run.roc_scores, LINE_STYLES, strict=False):
        values = run.data.image_scores[score]
        (false_rate,), (sensitivity,) = roc_curve(
            DrawnImages(values, run.data.has_opacity, run.ones)
        )
        axes.plot(
            false_rate,
            sensitivity,
            linestyle=dash,
            markevery=_spread(i, len(false_rate) // 6),
            label=f"AUROC, {score}: {in_digits(run.result('auroc', score))}",
            **mark(i),
        )


def _frame_reliability(axes: Axes, n_runs: int) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    edges = np.linspace(0, 1, N_BINS + 1)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.1 + ROW_OF_COUNTS * n_runs))
    axes.set_xticks(edges[::2])
    axes.set_xticks(edges, minor=True)
    axes.vlines(edges, 0, 1, color="grey", linewidth=0.4, alpha=0.5)
    axes.set_yticks(np.linspace(0, 1, 6))
    clean(axes, xlabel="P(opacity) of the global head", ylabel="share of images with an opacity")
    axes.text(0, 1.03, "images in each bin:", size="small", color="dimgrey")


def _draw_reliability(axes: Axes, run: RunNumbers, i: int) -> None:
    """Draw the mean of each bin that has images, and above all the images of each, in a row."""
    bins = reliability(run.data.image_scores[HEAD], run.data.has_opacity)
    filled = bins.counts > 0
    label = f"ECE: {in_digits(run.result('ece', HEAD))}"
    axes.plot(bins.probs[filled], bins.shares[filled], clip_on=False, label=label, **mark(i))
    height = axes.get_ylim()[1] - ROW_OF_COUNTS * (i + 0.5)
    for place, count in enumerate(bins.counts.tolist()):
        axes.text((place + 0.5) / N_BINS, height, f"{count:,}", size="small", ha="center",
                  va="center")  # fmt: skip
    axes.plot(1.025, height, **mark(i), linestyle="", clip_on=False)


def _spread(i: int, step: int) -> tuple[int, int]:
    """Choose points of the i-th run's curve to mark, apart from those of other runs."""
    step = max(1, step)
    return (3 * i + 2) * step // 8 % step, step


PANELS = (
    Panel(
        "Precision over recall at IoU 0.50 (COCO)",
        "Down the scores, recall is the share of true boxes that are found and precision the share "
        "of found boxes that are right, raised to the best at any higher recall; the area below "
        "the line is the average precision, and a line near the upper right corner is good.",
        _frame_precision,
        _why_no_boxes,
        _draw_precision,
    ),
    Panel(
        "FROC: found boxes against false alarms",
        "The share of true boxes that are found when as many false boxes an image are accepted, on "
        "average; the seven marked points are those whose mean is quoted, a hollow one lies beyond "
        "the last saved box, and a line near the upper left corner is good.",
        _frame_froc,
        _why_no_boxes,
        _draw_froc,
    ),
    Panel(
        "ROC: does the image have an opacity?",
        "The share of images with an opacity that are called so, against the share of the others "
        "that are called so too, for three scores of an image; the grey diagonal is chance, and a "
        "line near the upper left corner is good.",
        _frame_roc,
        _why_no_roc,
        _draw_roc,
    ),
    Panel(
        "Reliability of the global head",
        "How many of the images that the head gives a probability do have an opacity: on the grey "
        "diagonal its probabilities are right, below it they are too high, above it too low, and "
        "a point of few images says little.",
        _frame_reliability,
        lambda run: "",
        _draw_reliability,
    ),
)
