"""Curves of many runs in one panel: bands over runs that belong together, and readable limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from src.experiments.run_groups import AVERAGE_OVER
from src.metric import BoolArray, FloatArray
from src.system.command_line import CommandParser
from src.visualizations.figures import drawable, style_of

# A value is an outlier where the middle 80 % of all values would be left a tenth of the height.
MIDDLE = (0.1, 0.9)
FENCE = 10
MARGIN = 0.05  # of the height, above and below what is drawn
BAND_ALPHA = 0.18
BEHIND_TEXT = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
SHARED_COLOUR = "#333333"  # of a mark for runs of several lines
MAX_INSIDE = 6  # names that a legend inside the panel has room for; more stand below it
NAME_HEIGHT = 0.21  # of a name below the panel, inches
BELOW_PANEL = 0.45  # from the panel to the first name, inches: ticks and label lie between


class Curve(NamedTuple):
    """The values of one run, such as a loss by epoch.

    Attributes:
        x: (N,) ascending.
        y: (N,) NaN where there is none.
    """

    x: FloatArray
    y: FloatArray


class Band(NamedTuple):
    """What some curves have in common, at each x that one of them has.

    Attributes:
        x: (N,) ascending.
        mean, low, high: (N,) of the curves that have a value there.
    """

    x: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray


class Limits(NamedTuple):
    """The least and the greatest value that is no outlier."""

    low: float
    high: float


class Outlier(NamedTuple):
    """A value that lies outside of the limits, and the colour of its line."""

    x: float
    y: float
    colour: str


def add_average_flag(parser: CommandParser) -> None:
    """Let a command take the flag that says which runs are one line."""
    parser.add_argument(
        "--average-over",
        choices=AVERAGE_OVER,
        default="folds",
        help="runs that differ only in this are one: their mean, in a band from least to most; "
        "seeds: in fold, seed and --run tag",
    )


def panel_height(n_lines: int) -> float:
    """Return the height of a panel with so many lines and their names, inches."""
    return 4 + (NAME_HEIGHT * n_lines if n_lines > MAX_INSIDE else 0)


def draw_curves(axes: Axes, curves: Mapping[str, Sequence[Curve]]) -> None:
    """Draw a line for each name: its curve or, of several, the mean in a band from least to most.

    Outliers belong to no mean and no band; marks at the edge of the panel give their values.

    Args:
        curves: label of the line -> its curves. A name without any has no line, but takes a colour,
            so that the names have the same ones in every panel.
    """
    limits = robust_limits(np.concatenate([curve.y for own in curves.values() for curve in own]))
    outliers: list[Outlier] = []
    for i, (label, own) in enumerate(curves.items()):
        if not own:
            continue
        style = style_of(i)
        colour = style["color"]
        outliers += [each for curve in own for each in _outliers_of(curve, limits, colour)]
        band = join_curves(own if len(own) == 1 else [_without_outliers(c, limits) for c in own])
        (line,) = axes.plot(band.x, band.mean, label=drawable(label), marker=".", markersize=4)
        line.set(**style)
        if len(own) > 1:
            axes.fill_between(
                band.x, band.low, band.high, color=colour, alpha=BAND_ALPHA, linewidth=0
            )
    if limits is not None:
        _mark_outliers(axes, outliers, limits)
    legend = axes.legend(frameon=False, fontsize="small")
    if len(curves) > MAX_INSIDE:
        legend.set(loc="upper left")
        inches = axes.figure.dpi_scale_trans
        below = axes.transAxes + ScaledTranslation(0, -BELOW_PANEL, inches)
        legend.set_bbox_to_anchor((0, 0), below)


def join_curves(curves: Sequence[Curve]) -> Band:
    """Summarise curves, which need not have the same x."""
    x = np.unique(np.concatenate([curve.x for curve in curves]))
    table = np.full((len(curves), len(x)), np.nan)
    for row, curve in zip(table, curves, strict=True):
        row[np.searchsorted(x, curve.x)] = curve.y
    known = ~np.isnan(table)
    count, total = known.sum(axis=0), np.where(known, table, 0).sum(axis=0)
    mean = np.divide(total, count, out=np.full(len(x), np.nan), where=count > 0)
    return Band(x, mean, np.fmin.reduce(table), np.fmax.reduce(table))


def robust_limits(values: FloatArray) -> Limits | None:
    """Return the least and the greatest of the values that are no outliers.

    Args:
        values: (N,) of all curves together; NaN is no value, an infinite one is an outlier.

    Returns:
        None where there are no outliers: a plot's own limits show everything.
    """
    known = np.sort(values[~np.isnan(values)])
    if len(known) == 0:
        return None
    # Of few values these are not the extremes, so that one outlier cannot widen its own fence.
    low = np.quantile(known, MIDDLE[0], method="higher")
    high = np.quantile(known, MIDDLE[1], method="lower")
    spread = high - low if np.isfinite([low, high]).all() else np.nan
    near = np.isfinite(known)
    if spread > 0:
        near &= (known >= low - FENCE * spread) & (known <= high + FENCE * spread)
    if near.all() or not near.any():
        return None
    kept = known[near]
    return Limits(float(kept[0]), float(kept[-1]))


def _is_outlier(curve: Curve, limits: Limits | None) -> BoolArray:
    if limits is None:
        return np.zeros(len(curve.y), dtype=bool)
    return (curve.y < limits.low) | (curve.y > limits.high)  # neither where it is NaN


def _without_outliers(curve: Curve, limits: Limits | None) -> Curve:
    return Curve(curve.x, np.where(_is_outlier(curve, limits), np.nan, curve.y))


def _outliers_of(curve: Curve, limits: Limits | None, colour: str) -> list[Outlier]:
    rows = _is_outlier(curve, limits)
    pairs = zip(curve.x[rows].tolist(), curve.y[rows].tolist(), strict=True)
    return [Outlier(x, y, colour) for x, y in pairs]


def _mark_outliers(axes: Axes, outliers: Sequence[Outlier], limits: Limits) -> None:
    """Fit the panel to what lies within the limits, and write at its edges what does not."""
    margin = MARGIN * ((limits.high - limits.low) or abs(limits.low) or 1)
    bottom, top = limits.low - margin, limits.high + margin
    axes.set_ylim(bottom, top)
    by_place: dict[tuple[float, bool], list[Outlier]] = {}
    for each in outliers:
        by_place.setdefault((each.x, each.y > limits.high), []).append(each)
    for (x, is_above), own in by_place.items():
        edge, marker, inwards, side = (top, "^", -7, "top") if is_above else (
            bottom, "v", 7, "bottom")  # fmt: skip
        colours = {each.colour for each in own}
        colour = colours.pop() if len(colours) == 1 else SHARED_COLOUR
        axes.plot(x, edge, marker, color=colour, markersize=6, clip_on=False)
        axes.annotate(
            _write_values([each.y for each in own]), (x, edge), (0, inwards),
            textcoords="offset points", rotation="vertical", ha="center", va=side,
            fontsize="small", color=colour, bbox=BEHIND_TEXT,
        )  # fmt: skip


def _write_values(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if len(values) == 1 else f"{low} to {high} ({len(values)} runs)"
