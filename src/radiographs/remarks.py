"""What is odd about the grey values of files that give an image all the same.

A reader remarks it with `remark`; whoever reads many files collects that with `heard_remarks`, and
says it once, counted. Where nobody listens it is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.radiographs.pixels import MIN_BETWEEN, NEARLY_BLACK, NEARLY_WHITE, Pixels
from src.structures import WHITE

KINDS = {
    "one grey": "nearly one grey",
    "two greys": "nearly nothing but black and white",
    "few levels": "fewer than 64 of 256 grey levels for the lungs",
    "window": "a window or VOI LUT that is plainly wrong and was not used",
    "padding": "a padding value that nearly all pixels have, and that was not left out",
    "bits": "bits above BitsStored that many pixels use, and that were left out",
    "inversion": "PhotometricInterpretation and PresentationLUTShape that contradict each other",
}
ONE_GREY, FEW_LEVELS = 8, 64  # of 256
# Where the lungs lie: the image without these shares of height and width at each side.
MARGIN_Y, MARGIN_X = 0.2, 0.1
N_SAMPLES = 32  # rows, and columns, that are looked at: it must not slow down the reading


class Remark(NamedTuple):
    """A file, and what is odd about it: one of `KINDS`."""

    path: Path
    kind: str


_heard: ContextVar[list[Remark] | None] = ContextVar("heard", default=None)


def remark(path: Path, kind: str) -> None:
    """Tell whoever listens that a file is odd."""
    heard = _heard.get()
    if heard is not None:
        heard.append(Remark(path, kind))


@contextmanager
def heard_remarks() -> Iterator[list[Remark]]:
    """Collect the remarks that are made within the block."""
    heard: list[Remark] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def remark_on_pixels(path: Path, pixels: Pixels) -> None:
    """Remark an image with which a detector can do little: some rows and columns are looked at."""
    if _heard.get() is None:
        return
    height, width = pixels.shape
    top, left = int(MARGIN_Y * height), int(MARGIN_X * width)
    rows = slice(top, height - top, max(1, (height - 2 * top) // N_SAMPLES))
    columns = slice(left, width - left, max(1, (width - 2 * left) // N_SAMPLES))
    seen = pixels[rows, columns].astype(np.float32) * (1 if pixels.dtype == np.uint8 else WHITE)
    levels = np.sort(seen, axis=None)
    low, high = (int(share * (len(levels) - 1)) for share in (0.01, 0.99))
    spread = levels[high] - levels[low]
    is_between = (levels > NEARLY_BLACK * WHITE) & (levels < NEARLY_WHITE * WHITE)
    if spread < ONE_GREY:
        remark(path, "one grey")
    elif np.count_nonzero(is_between) < MIN_BETWEEN * len(levels):
        remark(path, "two greys")
    elif spread < FEW_LEVELS:
        remark(path, "few levels")


def summary(remarks: Iterable[Remark]) -> str:
    """Say in one line what was remarked, how often, and name the first file."""
    found = sorted(set(remarks))
    counts = Counter(kind for _, kind in found)
    parts = [f"{counts[kind]} with {text}" for kind, text in KINDS.items() if counts[kind]]
    n_files = len({path for path, _ in found})
    where = f"{n_files} files, {found[0].path} among them" if n_files > 1 else f"{found[0].path}"
    return f"odd grey values in {where}: {'; '.join(parts)}"
