"""What all figures share: colours that a colour-blind reader can tell apart, and saving."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.files import replaced_file

# Okabe and Ito's palette without its yellow, which is too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches; it belongs to no window."""
    return Figure(figsize=(width, height), layout="constrained")


def style_of(i: int) -> dict[str, str]:
    """Return colour and dash of the i-th line; the dash changes when the colours are used up."""
    n_colours = len(COLOURS)
    dash = LINE_STYLES[i // n_colours % len(LINE_STYLES)]
    return {"color": COLOURS[i % n_colours], "linestyle": dash}


def clean(axes: Axes, *, xlabel: str, ylabel: str, title: str = "") -> None:
    """Label the axes and take away what carries no information."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Save as PNG and as PDF, whatever ending `path` has.

    Returns:
        Both paths.
    """
    paths = [path.with_suffix(suffix) for suffix in (".png", ".pdf")]
    for target in paths:
        # A date in the PDF would make every run of a command write another file.
        metadata = {"CreationDate": None} if target.suffix == ".pdf" else None
        with replaced_file(target) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata=metadata)
    return paths
