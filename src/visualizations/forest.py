"""A forest plot: the differences of two detectors by every number, with their intervals.

A filled mark is a difference that the test finds, an open one is none; nothing depends on colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.scoring.comparison import LOWER_IS_BETTER, NEITHER_IS_BETTER, Difference
from src.visualizations.figures import new_figure

ROW_HEIGHT = 0.26  # of a number, inches
PANEL_WIDTH = 6.5
MAX_COLUMNS = 3
INK, FAINT = "black", "0.55"


def plot_forest(
    differences: Sequence[Difference], letters: Sequence[str], names: Sequence[str]
) -> Figure:
    """Draw a panel for each pair of runs, a row for each number.

    Numbers of which neither a high nor a low value is better are left out; they have a scale of
    their own.

    Args:
        differences: of one pair or more.
        letters: the runs' for short, by their rows.
        names: the runs' own, that can be drawn.
    """
    shown = [each for each in differences if each.number not in NEITHER_IS_BETTER]
    pairs = list(dict.fromkeys((each.run_a, each.run_b) for each in shown))
    n_columns = min(MAX_COLUMNS, max(1, len(pairs)))
    n_rows = max(1, math.ceil(len(pairs) / n_columns))
    most = max((sum((d.run_a, d.run_b) == pair for d in shown) for pair in pairs), default=1)
    height = n_rows * (1.3 + ROW_HEIGHT * most) + 0.2 * len(names)
    figure = new_figure(PANEL_WIDTH * n_columns, height)
    legend = "\n".join(f"{letter}: {name}" for letter, name in zip(letters, names, strict=False))
    figure.suptitle(legend, x=0.01, ha="left", fontsize="medium")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in panels[len(pairs) :]:
        axes.set_visible(False)
    for axes, (a, b) in zip(panels, pairs, strict=False):
        own = [each for each in shown if (each.run_a, each.run_b) == (a, b)]
        _draw_pair(axes, own, letters[a], letters[b])
    return figure


def _draw_pair(axes: Axes, differences: Sequence[Difference], a: str, b: str) -> None:
    axes.axvline(0, color=FAINT, linewidth=0.8, linestyle="--")
    for row, each in enumerate(differences):
        axes.plot([each.low, each.high], [row, row], color=INK, linewidth=1.2)
        fill = INK if each.is_shown else "white"
        axes.plot(each.difference, row, "o", markersize=5, color=INK, markerfacecolor=fill)
        weight = "bold" if each.is_shown else "normal"
        p = f"{each.p_holm:.3f}" if each.p_holm >= 0.0005 else "<0.001"
        axes.text(1.01, row, p, transform=axes.get_yaxis_transform(),
                  va="center", size="small", weight=weight)  # fmt: skip
    labels = [
        f"{each.number}, lower is better"
        if each.number.split(" ")[0] in LOWER_IS_BETTER
        else each.number
        for each in differences
    ]
    axes.set_yticks(range(len(labels)), labels, size="small")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.text(1.01, 1.01, "p", transform=axes.transAxes, size="small")
    axes.set_xlabel(f"{a} - {b}, with 95 % of the draws of patients")
    axes.set_title(f"{a} against {b} (filled: a difference is shown)", loc="left",
                   fontsize="medium")  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
