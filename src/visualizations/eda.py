"""Look at a data folder before training: its classes, its boxes, what augmentation makes of them.

`python src/visualizations/eda.py --data-dir data --out pics/eda --only class_counts examples`
writes each figure as PNG and PDF. The paper's figures 1 (examples) and 2 (class counts) are among
them, and the evidence for turning boxes by the thirds of their edges (section 4).
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from src.errors import CommandParser, InputError, report_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from src.datasets.annotations import DataFolder, Record
    from src.datasets.transforms import BoxPoints, Crop, FloatArray

SHOWN_ORDER = (1, 0, 2)  # of CLASS_NAMES: normal, not normal, lung opacity, as in the paper
SIZE_BIN = 32  # pixels of the file
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


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the figures are drawn from.

    Attributes:
        records: of every labelled image.
        level: of augmentation.
        seed: of the choice of images and of the augmentations.
        patient_id: the image to show; None lets the seed choose.
    """

    folder: DataFolder
    records: Sequence[Record]
    level: int
    seed: int
    patient_id: str | None

    def boxes_xywh(self) -> FloatArray:
        """Return all boxes, (N, 4).

        Raises:
            AnnotationsError: there are none.
        """
        from src.datasets.tables import AnnotationsError

        boxes = np.concatenate([record.boxes_xywh for record in self.records])
        if len(boxes) == 0:
            raise AnnotationsError(f"{self.folder.labels_path}: holds no boxes")
        return boxes

    def choose(self, records: Sequence[Record]) -> Record:
        """Return the patient's record if it is among these, or else one that the seed chooses."""
        asked = [record for record in records if record.patient_id == self.patient_id]
        chosen = int(np.random.default_rng(self.seed).integers(len(records)))
        return asked[0] if asked else records[chosen]

    def shown_record(self) -> Record:
        """Return the patient's record, or else a chosen one, with boxes if there are any."""
        with_boxes = [record for record in self.records if len(record.boxes_xywh)]
        return self.choose(self.records if self.patient_id else with_boxes or self.records)

    def image_path(self, record: Record) -> Path:
        """Return the path of a record's image.

        Raises:
            AnnotationsError: it is not there.
        """
        from src.datasets.tables import AnnotationsError

        path = self.folder.images_dir("train") / f"{record.patient_id}.dcm"
        if not path.is_file():
            raise AnnotationsError(f"{path}: no such file")
        return path


def count_classes(records: Sequence[Record]) -> list[int]:
    """Return the number of images of each class, in the order of `CLASS_NAMES`."""
    return np.bincount([record.category for record in records], minlength=3).tolist()


def count_boxes(records: Sequence[Record]) -> list[int]:
    """Return the number of images with 0, 1, 2, ... boxes, up to the most that one has."""
    return np.bincount([len(record.boxes_xywh) for record in records]).tolist()


def cover_shares(boxes_xywh: FloatArray, size: int) -> FloatArray:
    """Return how large a share of the boxes covers each pixel.

    Args:
        boxes_xywh: (N, 4) pixels of a size x size image, rounded to whole ones; N is 1 or more.

    Returns:
        (size, size), in [0, 1].
    """
    x, y, width, height = np.rint(boxes_xywh).astype(np.int64).T
    steps = np.zeros((size + 1, size + 1))
    # A box is a step up at its corner and down behind its ends: all are summed up at once.
    for rows, columns, step in ((y, x, 1), (y + height, x + width, 1),
                                (y, x + width, -1), (y + height, x, -1)):  # fmt: skip
        np.add.at(steps, (rows, columns), step)
    return steps.cumsum(axis=0).cumsum(axis=1)[:size, :size] / len(boxes_xywh)


def hull_growth(boxes_xywh: FloatArray, angles: FloatArray, points: BoxPoints) -> FloatArray:
    """Return by what factor the area of each box grows when the image is turned.

    Args:
        boxes_xywh: (N, 4) pixels of the file.
        angles: (A,) degrees.
        points: which points of the box are turned; their hull is the new box.

    Returns:
        (A, N), 1 for a box that stays as large as it is.
    """
    from src.datasets.annotations import IMAGE_SIZE
    from src.datasets.transforms import central_crop, warp_boxes

    whole = central_crop((IMAGE_SIZE, IMAGE_SIZE), IMAGE_SIZE)
    areas = []
    for angle in angles.tolist():
        boxes_xyxy = warp_boxes(boxes_xywh, replace(whole, angle=angle), points)
        areas.append(np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1))
    return np.stack(areas) / np.prod(boxes_xywh[:, 2:], axis=1)


def describe_level(level: int) -> str:
    """Say in one line what an augmentation level does beside its shift."""
    from src.datasets.augmentations import AUGMENTATION_LEVELS

    settings = asdict(AUGMENTATION_LEVELS[level])
    parts = [f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items() if value]
    return ", ".join(parts).replace("eight bit 1", "8 bit") or "the shift alone"


def draw_class_counts(subject: Subject) -> Figure:
    """Draw how many images there are of each class (paper, Fig. 2)."""
    from src.datasets.annotations import CLASS_NAMES
    from src.visualizations.figures import draw_counts, new_figure

    counts = count_classes(subject.records)
    figure = new_figure(6.0, 1.6)
    axes = figure.subplots()
    draw_counts(axes, [CLASS_NAMES[i] for i in SHOWN_ORDER], [counts[i] for i in SHOWN_ORDER])
    axes.set_title(f"{sum(counts):,} images", loc="left", fontsize="medium")
    return figure


def draw_boxes_per_image(subject: Subject) -> Figure:
    """Draw how many images have no box, one, two, ..."""
    from src.visualizations.figures import draw_counts, new_figure

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
    from src.visualizations.figures import new_figure

    boxes = subject.boxes_xywh()
    figure = new_figure(7.2, 2.8)
    place, size = figure.subplots(1, 2, gridspec_kw={"wspace": 0.1})
    _draw_places(place, boxes)
    _draw_sizes(size, boxes)
    return figure


def _draw_places(axes: Axes, boxes_xywh: FloatArray) -> None:
    from src.datasets.annotations import IMAGE_SIZE
    from src.visualizations.figures import COLOUR_MAP

    percents = 100 * cover_shares(boxes_xywh, IMAGE_SIZE)
    image = axes.imshow(percents, cmap=COLOUR_MAP, vmin=0, extent=(0, IMAGE_SIZE, IMAGE_SIZE, 0))
    _label_pixels(axes, "x", "y", title=f"Place of {len(boxes_xywh):,} boxes")
    _add_scale(axes, image, "boxes over the pixel (%)")


def _draw_sizes(axes: Axes, boxes_xywh: FloatArray) -> None:
    from matplotlib.colors import LogNorm

    from src.datasets.annotations import IMAGE_SIZE
    from src.visualizations.figures import COLOUR_MAP, MARK_COLOUR

    edges = np.arange(0, IMAGE_SIZE + SIZE_BIN, SIZE_BIN)
    width, height = boxes_xywh[:, 2:].T
    counts, *_ = np.histogram2d(height, width, bins=[edges, edges])
    scale = LogNorm(1, max(10.0, counts.max()))
    image = axes.pcolormesh(
        edges, edges, np.where(counts, counts, np.nan), cmap=COLOUR_MAP, norm=scale
    )
    axes.axline((0, 0), slope=1, color="0.5", linewidth=0.8, linestyle=":")
    axes.annotate("square", (930, 940), ha="right", va="bottom", color="0.4", fontsize="small")
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
    _label_pixels(axes, "width", "height", title="Size")
    _add_scale(axes, image, f"boxes in {SIZE_BIN} × {SIZE_BIN} pixels")


def _label_pixels(axes: Axes, x: str, y: str, *, title: str) -> None:
    from src.datasets.annotations import IMAGE_SIZE

    ticks = range(0, IMAGE_SIZE + 1, IMAGE_SIZE // 4)
    axes.set(xlabel=f"{x} (pixels)", ylabel=f"{y} (pixels)", xticks=ticks, yticks=ticks)
    axes.set_title(title, loc="left", fontsize="medium")


def _add_scale(axes: Axes, image: ScalarMappable, label: str) -> None:
    """Add a colour bar as high as the axes."""
    from matplotlib.ticker import StrMethodFormatter

    beside = axes.inset_axes((1.04, 0.0, 0.05, 1.0))
    axes.figure.colorbar(image, cax=beside, label=label, format=StrMethodFormatter("{x:.0f}"))


def draw_examples(subject: Subject) -> Figure:
    """Show an image of each class with its boxes (paper, Fig. 1)."""
    from src.datasets.annotations import CLASS_NAMES
    from src.datasets.dicom import read_image
    from src.visualizations.figures import BOX_COLOUR, draw_boxes, new_figure, show_image

    classes = [[r for r in subject.records if r.category == i] for i in SHOWN_ORDER]
    records = [subject.choose(members) for members in classes if members]
    figure = new_figure(2.4 * len(records), 2.8)
    panels = figure.subplots(1, len(records), squeeze=False)[0]
    for axes, record in zip(panels, records, strict=True):
        show_image(axes, read_image(subject.image_path(record)), title=CLASS_NAMES[record.category])
        corner, size = record.boxes_xywh[:, :2], record.boxes_xywh[:, 2:]
        draw_boxes(axes, np.concatenate([corner, corner + size], axis=1), BOX_COLOUR)
        axes.set_xlabel(record.patient_id, fontsize=NAME_SIZE, color="0.4")
    return figure


def draw_augmentation(subject: Subject) -> Figure:
    """Show an image as it is and several draws of its augmentation, as training sees them."""
    from src.datasets.detection_dataset import SampleOptions, TrainingDataset, ValidationDataset
    from src.datasets.image_sources import DicomFolder
    from src.visualizations.figures import BOX_COLOUR, draw_boxes, new_figure, show_image

    record, level = subject.shown_record(), subject.level
    source = DicomFolder(subject.image_path(record).parent)
    options = SampleOptions(img_size=SAMPLE_SIZE, augmentation_level=level, seed=subject.seed)
    draws = TrainingDataset([record], source, options)
    samples = [ValidationDataset([record], source, options)[0]]
    samples += [draws[epoch, 0] for epoch in range(N_DRAWS)]
    figure = new_figure(7.2, 4.3)
    for i, (axes, sample) in enumerate(zip(figure.subplots(2, 4).flat, samples, strict=True)):
        show_image(axes, sample.picture(), title=f"draw {i}" if i else "not augmented")
        draw_boxes(axes, sample.target.boxes_xyxy.numpy(), BOX_COLOUR)
    figure.suptitle(f"Level {level}: {describe_level(level)}", fontsize="x-small")
    figure.supxlabel(record.patient_id, fontsize=NAME_SIZE, color="0.4")
    return figure


def draw_rotation_example(subject: Subject) -> Figure:
    """Show an image's largest box turned by some angles, with its hulls by thirds and corners."""
    from src.datasets.dicom import read_image
    from src.datasets.pixels import as_float
    from src.datasets.tables import AnnotationsError
    from src.datasets.transforms import Crop, warp_image
    from src.visualizations.figures import new_figure, show_image

    record = subject.shown_record()
    if len(record.boxes_xywh) == 0:
        raise AnnotationsError(f"patient {record.patient_id} has no box to turn")
    image = read_image(subject.image_path(record))
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
    about = f"white, dotted: the box, turned with the image    {record.patient_id}"
    figure.supxlabel(about, fontsize=NAME_SIZE, color="0.4")
    return figure


def _draw_hulls(axes: Axes, boxes_xywh: FloatArray, crop: Crop) -> None:
    """Draw both hulls of a turned box and the box, and write below how large the hulls are."""
    from src.datasets.transforms import warp_boxes
    from src.visualizations.figures import draw_boxes, draw_outline

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
    from src.datasets.augmentations import AUGMENTATION_LEVELS
    from src.visualizations.figures import clean, new_figure

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


FIGURES: dict[str, Callable[[Subject], Figure]] = {
    "class_counts": draw_class_counts,
    "boxes_per_image": draw_boxes_per_image,
    "box_maps": draw_box_maps,
    "rotation_growth": draw_rotation_growth,
    "examples": draw_examples,
    "augmentation": draw_augmentation,
    "rotation_example": draw_rotation_example,
}


def read_subject(data_dir: Path, *, level: int, seed: int, patient_id: str | None) -> Subject:
    """Read the labels of a data folder and check what is to be shown.

    Raises:
        InputError: the labels are wrong, or there is no such level, seed or patient.
    """
    from src.datasets.annotations import DataFolder, read_records
    from src.datasets.augmentations import AUGMENTATION_LEVELS

    if level not in AUGMENTATION_LEVELS:
        raise InputError(
            f"unknown level {level}; one of {', '.join(map(str, AUGMENTATION_LEVELS))}"
        )
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or more")
    folder = DataFolder(data_dir)
    records = read_records(folder)
    if patient_id not in {None, *(record.patient_id for record in records)}:
        raise InputError(f"{folder.labels_path}: has no patient {patient_id}")
    return Subject(folder=folder, records=records, level=level, seed=seed, patient_id=patient_id)


def draw_figures(subject: Subject, names: Sequence[str] | None) -> dict[str, Figure]:
    """Draw the figures asked for, or all for which the data folder has boxes and images.

    Raises:
        InputError: a figure that was asked for cannot be drawn, or a file is broken.
    """
    from src.datasets.tables import AnnotationsError

    figures: dict[str, Figure] = {}
    for name in names or FIGURES:
        try:
            figures[name] = FIGURES[name](subject)
        except AnnotationsError as error:
            if names:
                raise
            warnings.warn(f"{name} is left out: {error}", stacklevel=2)
    return figures


def main() -> None:
    import config

    parser = CommandParser("Draw the classes, boxes and augmentations of a data folder.")
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    parser.add_argument("--out", type=Path, default=Path("eda"), help="folder of the figures")
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="NAME",
                        help=f"some of {', '.join(FIGURES)}")  # fmt: skip
    parser.add_argument("--patient", help="the image to show; a random one without")
    parser.add_argument("--level", type=int, default=20, help="of augmentation")
    parser.add_argument("--seed", type=int, default=0, help="of the choice and augmentation")
    arguments = parser.parse_args()
    with report_errors():
        subject = read_subject(
            arguments.data_dir,
            level=arguments.level,
            seed=arguments.seed,
            patient_id=arguments.patient,
        )
        figures = draw_figures(subject, arguments.only)
        from src.visualizations.figures import PRINT_DPI, save_figure

        for name, figure in figures.items():
            print(*save_figure(figure, arguments.out / f"{name}.png", dpi=PRINT_DPI), sep="\n")


if __name__ == "__main__":
    main()
