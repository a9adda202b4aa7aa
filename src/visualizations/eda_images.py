"""Figures of a data folder's images: one of each class, and what augmentation makes of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.datasets.detection_dataset import SampleOptions, TrainingDataset, ValidationDataset
from src.datasets.sample_options import AUGMENTATION_LEVELS
from src.datasets.tables import AnnotationsError
from src.datasets.transforms import (
    BoxPoints,
    Crop,
    FloatArray,
    central_crop,
    warp_boxes,
    warp_image,
)
from src.radiographs.pixels import as_float
from src.structures import CLASS_NAMES
from src.visualizations.eda_example import Subject
from src.visualizations.eda_labels import SHOWN_ORDER
from src.visualizations.figures import (
    BOX_COLOUR,
    clean,
    draw_boxes,
    draw_outline,
    drawable,
    new_figure,
    show_image,
)

SAMPLE_SIZE = 512  # side of a network input, pixels; the paper's
N_DRAWS = 7  # with the image as it is, two rows of four
EXAMPLE_ANGLES = (0, 4, 8, 12)  # degrees
EXAMPLE_MARGIN = 1.5  # side of the picture / longest side of its box
GROWTH_ANGLES = np.linspace(0.0, 15.0, 31)  # degrees
GROWTH_BAND = (5, 95)  # percentiles of the boxes
NAME_SIZE = 6  # of a patientId under its image, points


class HullLook(NamedTuple):
    on_image: str
    on_white: str
    linestyle: str


HULL_LOOKS: dict[BoxPoints, HullLook] = {
    "thirds": HullLook("#56B4E9", "#0072B2", "-"),
    "corners": HullLook("#E69F00", "#D55E00", "--"),
}


def hull_growth(boxes_xywh: FloatArray, angles: FloatArray, points: BoxPoints) -> FloatArray:
    """Return by what factor the area of each box grows when the image is turned.

    Args:
        boxes_xywh: (N, 4) pixels of the file.
        angles: (A,) degrees.
        points: which points of the box are turned; their hull is the new box.

    Returns:
        (A, N), 1 for a box that stays as large as it is.
    """
    whole = central_crop((SAMPLE_SIZE, SAMPLE_SIZE), SAMPLE_SIZE)  # its size does not matter
    areas = []
    for angle in angles.tolist():
        boxes_xyxy = warp_boxes(boxes_xywh, replace(whole, angle=angle), points)
        areas.append(np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1))
    return np.stack(areas) / np.prod(boxes_xywh[:, 2:], axis=1)


def describe_level(level: int) -> str:
    """Say in one line what an augmentation level does beside its shift."""
    settings = asdict(AUGMENTATION_LEVELS[level])
    parts = [f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items() if value]
    return ", ".join(parts).replace("eight bit 1", "8 bit") or "the shift alone"


def draw_examples(subject: Subject) -> Figure:
    """Show an image of each class with its boxes (paper, Fig. 1)."""
    classes = [[r for r in subject.records if r.category == i] for i in SHOWN_ORDER]
    records = [subject.choose(members) for members in classes if members]
    figure = new_figure(2.4 * len(records), 2.8)
    panels = figure.subplots(1, len(records), squeeze=False)[0]
    for axes, record in zip(panels, records, strict=True):
        show_image(axes, subject.read_image(record), title=CLASS_NAMES[record.category])
        corner, size = record.boxes_xywh[:, :2], record.boxes_xywh[:, 2:]
        draw_boxes(axes, np.concatenate([corner, corner + size], axis=1), BOX_COLOUR)
        axes.set_xlabel(drawable(record.patient_id), fontsize=NAME_SIZE, color="0.4")
    return figure


def draw_augmentation(subject: Subject) -> Figure:
    """Show an image as it is and several draws of its augmentation, as training sees them."""
    record, level = subject.shown_record(), subject.level
    source = subject.images
    options = SampleOptions(img_size=SAMPLE_SIZE, augmentation_level=level, seed=subject.seed)
    draws = TrainingDataset([record], source, options)
    samples = [ValidationDataset([record], source, options)[0]]
    samples += [draws[epoch, 0] for epoch in range(N_DRAWS)]
    figure = new_figure(7.2, 4.3)
    for i, (axes, sample) in enumerate(zip(figure.subplots(2, 4).flat, samples, strict=True)):
        show_image(axes, sample.picture(), title=f"draw {i}" if i else "not augmented")
        draw_boxes(axes, sample.target.boxes_xyxy.numpy(), BOX_COLOUR)
    figure.suptitle(f"Level {level}: {describe_level(level)}", fontsize="x-small")
    figure.supxlabel(drawable(record.patient_id), fontsize=NAME_SIZE, color="0.4")
    return figure


def draw_rotation_example(subject: Subject) -> Figure:
    """Show an image's largest box turned by some angles, with its hulls by thirds and corners."""
    record = subject.shown_record()
    if len(record.boxes_xywh) == 0:
        raise AnnotationsError(f"patient {record.patient_id} has no box to turn")
    image = subject.read_image(record)
    box = max(record.boxes_xywh, key=lambda box: box[2] * box[3])
    x, y, width, height = box.tolist()
    scale = SAMPLE_SIZE / (EXAMPLE_MARGIN * max(width, height))
    centred = Crop(SAMPLE_SIZE, (x + width / 2, y + height / 2), (scale, scale))
    figure = new_figure(1.8 * len(EXAMPLE_ANGLES), 2.5)
    panels = figure.subplots(1, len(EXAMPLE_ANGLES))
    for axes, angle in zip(panels, EXAMPLE_ANGLES, strict=True):
        crop = replace(centred, angle=angle)
        show_image(axes, as_float(warp_image(image, crop)), title=f"{angle}°")
        _draw_hulls(axes, box[None], crop)
    about = f"white, dotted: the box, turned with the image    {drawable(record.patient_id)}"
    figure.supxlabel(about, fontsize=NAME_SIZE, color="0.4")
    return figure


def _draw_hulls(axes: Axes, boxes_xywh: FloatArray, crop: Crop) -> None:
    """Draw both hulls of a turned box and the box, and write below how large the hulls are."""
    for i, (points, look) in enumerate(HULL_LOOKS.items()):
        hulls_xyxy = warp_boxes(boxes_xywh, crop, points)
        draw_boxes(axes, hulls_xyxy, look.on_image, linestyle=look.linestyle)
        (growth,) = hull_growth(boxes_xywh, np.array([crop.angle]), points)[0]
        place = (0.0, -0.03 - 0.1 * i)
        axes.text(
            *place,
            f"{points} × {growth:.2f}",
            color=look.on_white,
            va="top",
            transform=axes.transAxes,
        )
    ((x, y, width, height),) = boxes_xywh.tolist()
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    without_size = np.array([(*corner, 0.0, 0.0) for corner in corners])
    turned = warp_boxes(without_size, crop)[:, :2].tolist()
    draw_outline(axes, [(x, y) for x, y in turned], "white", linestyle=":")


def draw_rotation_growth(subject: Subject) -> Figure:
    """Draw how much larger than the box its hull becomes with the angle."""
    boxes = subject.boxes_xywh()
    figure = new_figure(4.6, 3.2)
    axes = figure.subplots()
    for points, look in HULL_LOOKS.items():
        growth = hull_growth(boxes, GROWTH_ANGLES, points)
        low, median, high = np.percentile(growth, [GROWTH_BAND[0], 50, GROWTH_BAND[1]], axis=1)
        axes.fill_between(GROWTH_ANGLES, low, high, color=look.on_white, alpha=0.2, linewidth=0)
        axes.plot(GROWTH_ANGLES, median, color=look.on_white, linestyle=look.linestyle)
        end = (1.02, median[-1])
        label = f"{points} × {median[-1]:.2f}"
        axes.text(
            *end, label, color=look.on_white, va="center", transform=axes.get_yaxis_transform()
        )
    spread = AUGMENTATION_LEVELS[subject.level].angle
    if spread:
        axes.axvline(spread, color="0.4", linewidth=0.8, linestyle=":")
        label = f" s.d. of level {subject.level}: {spread:g}°"
        axes.text(spread, 1.0, label, color="0.4", va="top", transform=axes.get_xaxis_transform())
    axes.set(xlim=(0, GROWTH_ANGLES[-1]), xticks=range(0, 16, 3))
    axes.set_ylim(bottom=1)
    band = "{}th to {}th percentile".format(*GROWTH_BAND)
    title = f"Median of {len(boxes):,} boxes; bands: {band}"
    clean(axes, xlabel="rotation (degrees)", ylabel="area of hull / area of box", title=title)
    return figure
