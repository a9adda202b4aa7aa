"""What all figures share: names, colours that a colour-blind reader can tell apart, saving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from src.experiments.run_groups import distinct_names
from src.system.files import OutputError, replaced_file
from src.system.streams import named_warnings
from src.system.texts import printable

# Okabe and Ito's palette without its yellow, which is too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
COLOUR_MAP = "cividis"  # grows lighter evenly, for every reader and in grey print
MARK_COLOUR = "#D55E00"
BOX_COLOUR = "#56B4E9"  # on an image; that of true boxes in overlays
DPI = 150
PRINT_DPI = 300  # for figures that hold images
TRUETYPE = 42  # journals refuse matplotlib's own Type 3 fonts


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches; it belongs to no window."""
    return Figure(figsize=(width, height), layout="constrained")


def style_of(i: int) -> dict[str, str]:
    """Return colour and dash of the i-th line; neighbours differ in both, also in grey print."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": LINE_STYLES[i % len(LINE_STYLES)],
    }


def name_runs(run_dirs: Sequence[Path]) -> list[str]:
    """Name runs as `distinct_names` does, in texts that can be drawn."""
    return [drawable(name) for name in distinct_names(run_dirs)]


def drawable(text: str) -> str:
    """Write the text of a file or a folder's name so that matplotlib draws it as it is.

    Between two $ signs it would read a formula, and a legend leaves out what begins with "_".
    """
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def clean(axes: Axes, *, xlabel: str, ylabel: str, title: str = "") -> None:
    """Label the axes and take away what carries no information."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)


def clean_by_epoch(axes: Axes, *, ylabel: str, title: str = "") -> None:
    """Do the same for what is drawn by epoch, which are whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    clean(axes, xlabel="epoch", ylabel=ylabel, title=title)


def show_image(axes: Axes, image: NDArray[np.float32], *, title: str = "") -> None:
    """Show a grey image without ticks; data coordinates are the edges of its pixels.

    Args:
        image: (H, W) in [0, 1].
    """
    height, width = image.shape
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, loc="left", fontsize="medium")


def draw_boxes(
    axes: Axes, boxes_xyxy: NDArray[np.floating], colour: str, *, linestyle: str = "-"
) -> None:
    """Draw boxes over an image.

    Args:
        boxes_xyxy: (M, 4) pixels of the image.
    """
    for x, y, x2, y2 in boxes_xyxy.tolist():
        draw_outline(axes, [(x, y), (x2, y), (x2, y2), (x, y2)], colour, linestyle=linestyle)


def draw_outline(
    axes: Axes, corners: Sequence[tuple[float, float]], colour: str, *, linestyle: str = "-"
) -> None:
    """Draw a closed line over an image, with a dark rim: it shows on bone as on lung."""
    line = Polygon(corners, fill=False, edgecolor=colour, linestyle=linestyle, linewidth=1.3)
    line.set_path_effects([withStroke(linewidth=2.2, foreground="black", alpha=0.6)])
    axes.add_patch(line)


def draw_counts(axes: Axes, names: Sequence[str], counts: Sequence[int]) -> None:
    """Draw a lying bar for each count, from the top down, with the number and its share."""
    total = max(1, sum(counts))
    bars = axes.barh(names, counts, color=COLOURS[0], height=0.7)
    axes.bar_label(bars, [f"{n:,}  ({_percent(n / total)})" for n in counts], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.6 * max(1, *counts))  # room for the numbers
    axes.xaxis.set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def draw_heat_map(
    axes: Axes,
    values: NDArray[np.float64],
    texts: Sequence[Sequence[str]] | None = None,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float] | None = None,
    mark: tuple[int, int] | None = None,
    bold: NDArray[np.bool_] | None = None,
) -> AxesImage:
    """Draw a table as colours.

    Args:
        values: (R, C); NaN stays white.
        texts: what is written into the cells.
        rows: labels of the R rows.
        columns: labels of the C columns.
        limits: values of the darkest and the lightest colour; None takes the table's own.
        mark: row and column of a cell that gets a frame.
        bold: (R, C) cells whose text stands out.

    Returns:
        The image, for a colour bar.
    """
    low, high = limits or (None, None)
    image = axes.imshow(values, cmap=COLOUR_MAP, aspect="auto", vmin=low, vmax=high)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    lightness = np.asarray(image.norm(values), dtype=np.float64)
    for row, texts_of_row in enumerate(texts or ()):
        for column, text in enumerate(texts_of_row):
            colour = "white" if lightness[row, column] < 0.5 else "black"
            weight = "bold" if bold is not None and bold[row, column] else "normal"
            axes.text(column, row, text, color=colour, weight=weight, size="small", ha="center",
                      va="center")  # fmt: skip
    if mark is not None:
        row, column = mark
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color=MARK_COLOUR, lw=2.5)
        axes.add_patch(frame).set_clip_on(False)
    return image


def check_picture_path(path: Path) -> None:
    """Refuse what `save_figure` cannot write, before the figure is drawn.

    Raises:
        OutputError: the path is a folder or has another ending.
    """
    if path.is_dir() or path.suffix not in ("", ".png", ".pdf"):
        raise OutputError(f"{path}: not the name of a picture, such as figure.png")


def save_figure(figure: Figure, path: Path, *, dpi: int = DPI) -> list[Path]:
    """Save as PNG and as PDF; `path` has one of these endings or none.

    Args:
        dpi: of the PNG, and of images in the PDF.

    Returns:
        Both paths.

    Raises:
        OutputError: the path is a folder or has another ending, or it cannot be written.
    """
    check_picture_path(path)
    paths = [path.with_suffix(suffix) for suffix in (".png", ".pdf")]
    for target in paths:
        # A date in the PDF would make every run of a command write another file.
        metadata = {"CreationDate": None} if target.suffix == ".pdf" else None
        with (
            replaced_file(target) as temporary,
            named_warnings(path),  # of letters that its font lacks
            rc_context({"pdf.fonttype": TRUETYPE}),
        ):
            figure.savefig(temporary, dpi=dpi, metadata=metadata)
    return paths


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"
