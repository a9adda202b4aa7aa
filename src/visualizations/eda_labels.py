"""Figures of a data folder's labels: its classes, and how many boxes lie where and how large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from src.datasets.annotations import Record
from src.datasets.box_sizes import Size
from src.datasets.transforms import FloatArray
from src.structures import CLASS_NAMES
from src.visualizations.eda_example import Subject
from src.visualizations.figures import COLOUR_MAP, MARK_COLOUR, draw_counts, new_figure

SHOWN_ORDER = (1, 0, 2)  # of CLASS_NAMES: normal, not normal, lung opacity, as in the paper
SIZE_BIN = 32  # pixels of the file


def count_classes(records: Sequence[Record]) -> list[int]:
    """Return the number of images of each class, in the order of `CLASS_NAMES`."""
    return np.bincount([record.category for record in records], minlength=3).tolist()


def count_boxes(records: Sequence[Record]) -> list[int]:
    """Return the number of images with 0, 1, 2, ... boxes, up to the most that one has."""
    return np.bincount([len(record.boxes_xywh) for record in records]).tolist()


def cover_shares(boxes_xywh: FloatArray, size: Size) -> FloatArray:
    """Return how large a share of the boxes covers each pixel.

    Args:
        boxes_xywh: (N, 4) pixels of an image, rounded to whole ones.
        size: height H and width W of the image.

    Returns:
        (H, W), in [0, 1]; 0 without boxes.
    """
    x, y, width, height = np.rint(boxes_xywh).astype(np.int64).T
    rows, columns = size
    steps = np.zeros((rows + 1, columns + 1))
    # A box is a step up at its corner and down behind its ends: all are summed up at once.
    for down, right, step in ((y, x, 1), (y + height, x + width, 1),
                                (y, x + width, -1), (y + height, x, -1)):  # fmt: skip
        np.add.at(steps, (down, right), step)
    return steps.cumsum(axis=0).cumsum(axis=1)[:rows, :columns] / max(1, len(boxes_xywh))


def draw_class_counts(subject: Subject) -> Figure:
    """Draw how many images there are of each class (paper, Fig. 2)."""
    counts = count_classes(subject.records)
    figure = new_figure(6.0, 1.6)
    axes = figure.subplots()
    draw_counts(axes, [CLASS_NAMES[i] for i in SHOWN_ORDER], [counts[i] for i in SHOWN_ORDER])
    axes.set_title(f"{sum(counts):,} images", loc="left", fontsize="medium")
    return figure


def draw_boxes_per_image(subject: Subject) -> Figure:
    """Draw how many images have no box, one, two, ..."""
    counts = count_boxes(subject.records)
    names = [f"{n} box" if n == 1 else f"{n or 'no'} boxes" for n in range(len(counts))]
    n_boxes = sum(n * count for n, count in enumerate(counts))
    figure = new_figure(5.0, 0.7 + 0.3 * len(counts))
    axes = figure.subplots()
    draw_counts(axes, names, counts)
    axes.set_title(f"{n_boxes:,} boxes on {sum(counts):,} images", loc="left", fontsize="medium")
    return figure


def draw_box_maps(subject: Subject) -> Figure:
    """Draw where boxes lie and how large they are."""
    boxes, image_size = subject.boxes_xywh(), subject.usual_size
    figure = new_figure(7.2, 2.8)
    place, size = figure.subplots(1, 2, gridspec_kw={"wspace": 0.1})
    _draw_places(place, boxes, image_size)
    _draw_sizes(size, boxes, image_size)
    return figure


def _draw_places(axes: Axes, boxes_xywh: FloatArray, size: Size) -> None:
    percents = 100 * cover_shares(boxes_xywh, size)
    image = axes.imshow(percents, cmap=COLOUR_MAP, vmin=0, extent=(0, size[1], size[0], 0))
    _label_pixels(axes, size, "x", "y", title=f"Place of {len(boxes_xywh):,} boxes")
    _add_scale(axes, image, "boxes over the pixel (%)")


def _draw_sizes(axes: Axes, boxes_xywh: FloatArray, size: Size) -> None:
    side = max(size)
    edges = np.arange(0, side + SIZE_BIN, SIZE_BIN)
    width, height = boxes_xywh[:, 2:].T
    counts, *_ = np.histogram2d(height, width, bins=[edges, edges])
    scale = LogNorm(1, max(10.0, counts.max()))
    image = axes.pcolormesh(
        edges, edges, np.where(counts, counts, np.nan), cmap=COLOUR_MAP, norm=scale
    )
    axes.axline((0, 0), slope=1, color="0.5", linewidth=0.8, linestyle=":")
    axes.annotate(
        "square",
        (0.908 * side, 0.918 * side),
        ha="right",
        va="bottom",
        color="0.4",
        fontsize="small",
    )
    median = (float(np.median(width)), float(np.median(height)))
    axes.plot(*median, marker="o", markersize=7, markerfacecolor="none", color=MARK_COLOUR)
    axes.annotate(
        f"median {median[0]:.0f} × {median[1]:.0f}",
        median,
        xytext=(0.97, 0.05),
        textcoords="axes fraction",
        ha="right",
        color=MARK_COLOUR,
        arrowprops={"arrowstyle": "-", "color": MARK_COLOUR, "shrinkB": 4},
    )
    axes.set(aspect="equal")
    _label_pixels(axes, (side, side), "width", "height", title="Size")
    _add_scale(axes, image, f"boxes in {SIZE_BIN} × {SIZE_BIN} pixels")


def _label_pixels(axes: Axes, size: Size, x: str, y: str, *, title: str) -> None:
    yticks, xticks = (range(0, side + 1, max(1, side // 4)) for side in size)
    axes.set(xlabel=f"{x} (pixels)", ylabel=f"{y} (pixels)", xticks=xticks, yticks=yticks)
    axes.set_title(title, loc="left", fontsize="medium")


def _add_scale(axes: Axes, image: ScalarMappable, label: str) -> None:
    """Add a colour bar as high as the axes."""
    beside = axes.inset_axes((1.04, 0.0, 0.05, 1.0))
    axes.figure.colorbar(image, cax=beside, label=label, format=StrMethodFormatter("{x:.0f}"))
