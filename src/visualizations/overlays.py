"""An image with its true boxes and what a model found, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from src.prediction.postprocess import ChosenBoxes
from src.prediction.predictions import Predictions
from src.structures import CLASS_NAMES, OPACITY, UNKNOWN_CATEGORY
from src.system.files import replaced_file

TRUE_COLOUR = (86, 180, 233)  # sky blue and orange: told apart by every reader
FOUND_COLOUR = (230, 159, 0)
TEXT_COLOUR = (240, 240, 240)
MIN_SIDE = 512  # smaller images are enlarged, so that the text is readable
CAPTION_HEIGHT = 26
SHEET_TILE = 384  # width of a picture on a contact sheet
SHEET_COLUMNS = 4
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE = 0.5


def draw_overlay(
    image: NDArray[np.float32],
    *,
    true_boxes_xyxy: NDArray[np.float32],
    boxes_xyxy: NDArray[np.floating[Any]],
    scores: NDArray[np.float32],
    caption: str = "",
) -> NDArray[np.uint8]:
    """Draw true boxes (blue, dashed) and found ones (orange, with their scores).

    Args:
        image: (H, W) in [0, 1].
        true_boxes_xyxy: (M, 4) pixels of `image`.
        boxes_xyxy: (N, 4) pixels of `image`.
        scores: (N,).
        caption: a line below the image.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    factor = max(1, round(MIN_SIDE / max(image.shape)))
    grey = (image.clip(0, 1) * 255).astype(np.uint8)
    grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    canvas = np.stack([grey] * 3, axis=-1)
    for box in true_boxes_xyxy * factor:
        _dashed_rectangle(canvas, box)
    for box, score in zip(boxes_xyxy * factor, scores, strict=True):
        x, y, x2, y2 = (round(float(value)) for value in box)
        cv2.rectangle(canvas, (x, y), (x2, y2), FOUND_COLOUR, 2, cv2.LINE_AA)
        _tag(canvas, f"{score:.2f}", (x, y), FOUND_COLOUR)
    if caption:
        strip = np.zeros((CAPTION_HEIGHT, canvas.shape[1], 3), dtype=np.uint8)
        at = (6, CAPTION_HEIGHT - 8)
        cv2.putText(strip, caption, at, FONT, FONT_SCALE, TEXT_COLOUR, 1, cv2.LINE_AA)
        canvas = np.concatenate([canvas, strip])
    return canvas


def draw_predictions(
    picture: NDArray[np.float32], predictions: Predictions, chosen: ChosenBoxes, image: int
) -> NDArray[np.uint8]:
    """Draw the boxes that count in one image over it, and its truth where that is known.

    Args:
        picture: (S, S) in [0, 1], the network input.
        image: its index in the predictions.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    opacity = predictions.class_probs[image, OPACITY]
    caption = f"{predictions.ids[image]}  P(opacity) {opacity:.2f}"
    if predictions.true_categories[image] != UNKNOWN_CATEGORY:
        caption += f"  true: {CLASS_NAMES[predictions.true_categories[image]]}"
    boxes_xyxy, scores = chosen.of_image(image)
    return draw_overlay(
        picture,
        true_boxes_xyxy=predictions.true_boxes_xyxy[predictions.truth_of(image)],
        boxes_xyxy=boxes_xyxy,
        scores=scores,
        caption=caption,
    )


def contact_sheet(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay pictures of one size out in rows of four, reduced.

    Args:
        pictures: (H, W, 3) each, RGB.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    height, width, _ = pictures[0].shape
    tile = (SHEET_TILE, round(SHEET_TILE * height / width))
    tiles = [cv2.resize(picture, tile, interpolation=cv2.INTER_AREA) for picture in pictures]
    n_columns = min(SHEET_COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % n_columns)
    rows = [np.hstack(tiles[i : i + n_columns]) for i in range(0, len(tiles), n_columns)]
    return np.asarray(np.vstack(rows), dtype=np.uint8)


def save_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an RGB picture, in the format of the path's ending, whole or not at all."""
    with replaced_file(path) as temporary:
        _, encoded = cv2.imencode(path.suffix, picture[..., ::-1])
        temporary.write_bytes(encoded.tobytes())


def _tag(
    canvas: NDArray[np.uint8], text: str, corner: tuple[int, int], colour: tuple[int, ...]
) -> None:
    """Write on a coloured ground above the corner of a box, or into it at the image's edge."""
    (width, height), _ = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    x, bottom = corner[0], max(corner[1], height + 8)
    cv2.rectangle(canvas, (x, bottom - height - 8), (x + width + 8, bottom), colour, cv2.FILLED)
    cv2.putText(canvas, text, (x + 4, bottom - 4), FONT, FONT_SCALE, (0, 0, 0), 1, cv2.LINE_AA)


def _dashed_rectangle(canvas: NDArray[np.uint8], box: NDArray[np.float32], dash: int = 8) -> None:
    x, y, x2, y2 = (float(value) for value in box)
    corners = [(x, y), (x2, y), (x2, y2), (x, y2), (x, y)]
    for start, end in pairwise(corners):
        a, b = np.array(start), np.array(end)
        n_dashes = max(1, int(np.hypot(*(b - a)) / (2 * dash)))
        for i in range(n_dashes):
            p, q = a + (b - a) * i / n_dashes, a + (b - a) * (i + 0.5) / n_dashes
            p_px, q_px = (
                tuple(np.rint(p).astype(int).tolist()),
                tuple(np.rint(q).astype(int).tolist()),
            )
            cv2.line(canvas, p_px, q_px, TRUE_COLOUR, 2, cv2.LINE_AA)
