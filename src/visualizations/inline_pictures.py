"""Pictures as text inside an HTML page: figures, and radiographs with boxes drawn over them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from src.scoring.matching import Findings
from src.visualizations.gallery import Entry

MAX_SIDE = 640  # pixels of an embedded radiograph: twice what a column of the page shows
JPEG_QUALITY = 82
TEXT_SIZE = 0.042  # of a radiograph's longer side


def embed_figure(figure: Figure, description: str) -> str:
    """Turn a figure into an `<img>` element; equal figures give equal text."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "report"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f'<img alt="{html.escape(description)}" src="{_data_uri("svg+xml", buffer.getvalue())}">'


def draw_entry(findings: Findings, entry: Entry, image: NDArray[np.float32]) -> str:
    """Draw true and found boxes over an image, as an `<svg>` element.

    Args:
        image: (H, W) in [0, 1], the file's pixels.

    Returns:
        True boxes have the class `true`, found ones `found`, those that are meant also `marked`;
        found ones carry their scores.
    """
    height, width = image.shape
    size = TEXT_SIZE * max(height, width)
    boxes = "".join(_draw_boxes(findings, entry, size))
    return (
        f'<svg viewBox="0 0 {width} {height}" font-size="{size:.0f}" role="img" '
        f'aria-label="Radiograph with boxes"><image href="{_encode(image)}" width="{width}" '
        f'height="{height}" preserveAspectRatio="none"/>{boxes}</svg>'
    )


def _draw_boxes(findings: Findings, entry: Entry, text_size: float) -> Iterator[str]:
    predictions, image = findings.predictions, entry.image
    rows = predictions.truth_of(image)
    true = predictions.in_file_pixels(image, predictions.true_boxes_xyxy[rows])
    for row, box in enumerate(true.tolist(), start=rows.start):
        yield _rectangle(box, "true", marked=row in entry.marked_true)
    boxes, scores = findings.chosen.of_image(image)
    first = int(findings.boxes.offsets[image])
    found = predictions.in_file_pixels(image, boxes).tolist()
    for i, (box, score) in enumerate(zip(found, scores.tolist(), strict=True), start=first):
        yield _rectangle(box, "found", marked=i in entry.marked_found)
        x, y = box[0] + 0.2 * text_size, max(box[1] - 0.3 * text_size, text_size)
        yield f'<text x="{x:.0f}" y="{y:.0f}">{score:.2f}</text>'


def _rectangle(box_xyxy: list[float], kind: str, *, marked: bool) -> str:
    x, y, x2, y2 = box_xyxy
    classes = f"{kind} marked" if marked else kind
    return (
        f'<rect class="{classes}" x="{x:.1f}" y="{y:.1f}" width="{x2 - x:.1f}" '
        f'height="{y2 - y:.1f}"/>'
    )


def _encode(image: NDArray[np.float32]) -> str:
    """Reduce an image (H, W) in [0, 1] and write it as a JPEG inside a data URI."""
    factor = min(1.0, MAX_SIDE / max(image.shape))
    reduced = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    grey = np.rint(reduced.clip(0, 1) * 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return _data_uri("jpeg", encoded.tobytes())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
