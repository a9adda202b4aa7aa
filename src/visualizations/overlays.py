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
from src.radiographs.pixels import Pixels
from src.structures import CLASS_NAMES, OPACITY, UNKNOWN_CATEGORY, WHITE
from src.system.files import replaced_file

TRUE_COLOUR = (86, 180, 233)  # sky blue and orange: told apart by every reader
FOUND_COLOUR = (230, 159, 0)
TEXT_COLOUR = (240, 240, 240)
MIN_SIDE = 512  # smaller images are enlarged, so that the text is readable
MAX_SIDE = 1536  # larger ones are reduced: a picture is to be looked at, not measured
PLAIN_SIDE = 640  # above it lines and text grow with the picture
MAX_CAPTION_NAME = 48  # characters
CAPTION_HEIGHT = 26
DASH = 8  # pixels
SHEET_TILE = 384  # width of a picture on a contact sheet
SHEET_COLUMNS = 4
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE = 0.5


def draw_overlay(
    image: Pixels,
    *,
    true_boxes_xyxy: NDArray[np.floating[Any]],
    boxes_xyxy: NDArray[np.floating[Any]],
    scores: NDArray[np.float32],
    caption: str = "",
) -> NDArray[np.uint8]:
    """Draw true boxes (blue, dashed) and found ones (orange, with their scores).

    Args:
        image: (H, W) in [0, 1], or uint8.
        true_boxes_xyxy: (M, 4) pixels of `image`.
        boxes_xyxy: (N, 4) pixels of `image`.
        scores: (N,).
        caption: a line below the image.

    Returns:
        (H', W', 3) uint8, RGB, of the image's shape; the longer side is between `MIN_SIDE` / 1.5
        and `MAX_SIDE` pixels.
    """
    whole = image if image.dtype == np.uint8 else image.clip(0, 1) * WHITE
    grey = _resize(whole.astype(np.uint8, copy=False))
    canvas = np.stack([grey] * 3, axis=-1)
    scale = np.tile(np.array(grey.shape[::-1]) / image.shape[::-1], 2)
    size = max(1.0, max(grey.shape) / PLAIN_SIDE)  # of lines and text
    for box in true_boxes_xyxy * scale:
        _dashed_rectangle(canvas, box, size)
    for box, score in zip(boxes_xyxy * scale, scores, strict=True):
        x, y, x2, y2 = (round(float(value)) for value in box)
        cv2.rectangle(canvas, (x, y), (x2, y2), FOUND_COLOUR, round(2 * size), cv2.LINE_AA)
        _tag(canvas, f"{score:.2f}", (x, y), FOUND_COLOUR, size)
    if caption:
        height = round(CAPTION_HEIGHT * size)
        strip = np.zeros((height, canvas.shape[1], 3), dtype=np.uint8)
        at = (round(6 * size), height - round(8 * size))
        cv2.putText(strip, caption, at, FONT, FONT_SCALE * size, TEXT_COLOUR, round(size),
                    cv2.LINE_AA)  # fmt: skip
        canvas = np.concatenate([canvas, strip])
    return canvas


def draw_predictions(
    picture: Pixels, predictions: Predictions, chosen: ChosenBoxes, image: int
) -> NDArray[np.uint8]:
    """Draw the boxes that count in one image over its file, and its truth where that is known.

    Args:
        picture: (H, W) in [0, 1], or uint8: all that the file shows, at any scale.
        image: its index in the predictions.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    name, opacity = str(predictions.ids[image]), predictions.class_probs[image, OPACITY]
    if len(name) > MAX_CAPTION_NAME:  # its end tells most
        name = f"...{name[-MAX_CAPTION_NAME:]}"
    caption = f"{name}  P(opacity) {opacity:.2f}"
    if predictions.true_categories[image] != UNKNOWN_CATEGORY:
        name = CLASS_NAMES[predictions.true_categories[image]].split(" / ")[-1]  # fits below a tile
        caption += f"  true: {name}"
    boxes_xyxy, scores = chosen.of_image(image)
    true_boxes_xyxy = predictions.true_boxes_xyxy[predictions.truth_of(image)]
    file_size = predictions.image_sizes[image]
    scale = np.tile(np.array(picture.shape[::-1]) / file_size[::-1], 2)
    return draw_overlay(
        picture,
        true_boxes_xyxy=predictions.in_file_pixels(image, true_boxes_xyxy) * scale,
        boxes_xyxy=predictions.in_file_pixels(image, boxes_xyxy) * scale,
        scores=scores,
        caption=caption,
    )


def sheet_tile(picture: NDArray[np.uint8], tile_height: int | None = None) -> NDArray[np.uint8]:
    """Reduce a picture to a tile of the contact sheet, black where its shape is another.

    Args:
        picture: (H, W, 3).
        tile_height: pixels; None takes what the picture's shape gives.

    Returns:
        (tile_height, `SHEET_TILE`, 3).
    """
    height, width, _ = picture.shape
    own_height = max(1, round(SHEET_TILE * height / width))
    tile_height = own_height if tile_height is None else tile_height
    factor = min(1.0, tile_height / own_height)
    size = max(1, round(SHEET_TILE * factor)), max(1, round(own_height * factor))
    tile = np.zeros((tile_height, SHEET_TILE, 3), dtype=np.uint8)
    tile[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return tile


def contact_sheet(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay pictures out in rows of four, reduced into tiles of the first one's shape.

    Args:
        pictures: (H, W, 3) each, RGB.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    height, width, _ = pictures[0].shape
    tile_height = max(1, round(SHEET_TILE * height / width))
    tiles = [sheet_tile(picture, tile_height) for picture in pictures]
    n_columns = min(SHEET_COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % n_columns)
    rows = [np.hstack(tiles[i : i + n_columns]) for i in range(0, len(tiles), n_columns)]
    return np.asarray(np.vstack(rows), dtype=np.uint8)


def _resize(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge a small image by a whole factor, reduce a large one; its shape stays."""
    height, width = grey.shape
    longest = max(height, width)
    if longest > MAX_SIDE:
        size = (max(1, round(side * MAX_SIDE / longest)) for side in (width, height))
        return np.asarray(cv2.resize(grey, tuple(size), interpolation=cv2.INTER_AREA), np.uint8)
    factor = max(1, round(MIN_SIDE / longest))
    larger = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return np.asarray(larger, dtype=np.uint8)


def save_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an RGB picture, in the format of the path's ending, whole or not at all."""
    with replaced_file(path) as temporary:
        _, encoded = cv2.imencode(path.suffix, picture[..., ::-1])
        temporary.write_bytes(encoded.tobytes())


def _tag(
    canvas: NDArray[np.uint8],
    text: str,
    corner: tuple[int, int],
    colour: tuple[int, ...],
    size: float,
) -> None:
    """Write on a coloured ground above the corner of a box, or into it at the image's edge."""
    (width, height), _ = cv2.getTextSize(text, FONT, FONT_SCALE * size, round(size))
    rim = round(4 * size)
    x, bottom = corner[0], max(corner[1], height + 2 * rim)
    top = bottom - height - 2 * rim
    cv2.rectangle(canvas, (x, top), (x + width + 2 * rim, bottom), colour, cv2.FILLED)
    cv2.putText(canvas, text, (x + rim, bottom - rim), FONT, FONT_SCALE * size, (0, 0, 0),
                round(size), cv2.LINE_AA)  # fmt: skip


def _dashed_rectangle(
    canvas: NDArray[np.uint8], box: NDArray[np.floating[Any]], size: float
) -> None:
    x, y, x2, y2 = (float(value) for value in box)
    dash = DASH * size
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
            cv2.line(canvas, p_px, q_px, TRUE_COLOUR, round(2 * size), cv2.LINE_AA)
