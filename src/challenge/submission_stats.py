"""How many boxes there are and how large: a submission's beside those of the training set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.challenge.submission_file import SubmittedBox, read_submission
from src.datasets.annotations import read_records
from src.datasets.data_folder import DataFolder

Statistics = dict[str, str]


def submission_statistics(path: Path) -> Statistics:
    """Describe the boxes of a submission, and their confidences.

    Raises:
        SubmissionError: the submission is missing or wrong.
    """
    images = [np.array(boxes).reshape(-1, 5) for boxes in read_submission(path).values()]
    confidences = np.concatenate(images)[:, SubmittedBox._fields.index("confidence")]
    return box_statistics([boxes[:, 1:] for boxes in images]) | {
        "confidence": _mean_and_median(confidences, 3)
    }


def training_statistics(data_dir: Path) -> Statistics:
    """Describe the true boxes of a data folder.

    Raises:
        AnnotationsError: a label file is missing or wrong.
    """
    return box_statistics([record.boxes_xywh for record in read_records(DataFolder(data_dir))])


def box_statistics(images: Iterable[NDArray[np.float64]]) -> Statistics:
    """Describe the boxes of images.

    Args:
        images: (N, 4) xywh for each image, pixels of the image's file; N may be 0.

    Returns:
        Name of a number -> the number as text.
    """
    boxes = list(images)
    counts = np.array([len(own) for own in boxes])
    sides = np.concatenate([np.zeros((0, 4)), *boxes])[:, 2:]
    n_images, n_with_boxes, n_boxes = len(boxes), int((counts > 0).sum()), int(counts.sum())
    return {
        "images": f"{n_images}",
        "images with boxes": f"{n_with_boxes} ({100 * n_with_boxes / max(1, n_images):.1f} %)",
        "boxes": f"{n_boxes}",
        "boxes per image": f"{n_boxes / max(1, n_images):.3f}",
        "boxes per image with boxes": f"{n_boxes / n_with_boxes:.3f}" if n_with_boxes else "-",
        "most boxes in an image": f"{counts.max(initial=0)}",
        "width": _mean_and_median(sides[:, 0], 1),
        "height": _mean_and_median(sides[:, 1], 1),
        "area": _mean_and_median(sides.prod(axis=1), 0),
    }


def format_columns(columns: Mapping[str, Statistics]) -> Iterator[str]:
    """Set statistics side by side.

    Args:
        columns: heading -> statistics; those that the first has are shown.

    Yields:
        Lines of text.
    """
    names = list(next(iter(columns.values())))
    table = [["", *columns], *([n, *(c.get(n, "-") for c in columns.values())] for n in names)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *others in table:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells])


def _mean_and_median(values: NDArray[np.float64], n_digits: int) -> str:
    if len(values) == 0:
        return "-"
    return f"mean {values.mean():.{n_digits}f}, median {np.median(values):.{n_digits}f}"
