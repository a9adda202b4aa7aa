"""Consolidations with the numbers, sizes and places of the challenge's boxes."""

import cv2
import numpy as np

from scripts.anatomy import MIDLINE, SCALE, SIZE, Box, Map, fractal_noise, soften

# Statistics of the challenge's 9,555 boxes in 6,012 images (stage_2_train_labels.csv), by the
# number of boxes in the image: log width, log height, centre's distance from x = 512, centre's y.
BOX_COUNT_SHARES = (0.4348, 0.5432, 0.0198, 0.0022)  # 1, 2, 3, 4 boxes
BOX_MEANS = (
    (5.281, 5.417, 197.0, 541.1),
    (5.387, 5.802, 195.8, 529.2),
    (5.129, 5.287, 193.3, 504.0),
    (5.080, 5.142, 186.6, 520.8),
)
BOX_STDS = (0.283, 0.477, 60.7, 114.8)  # around those means
BOX_CORRELATIONS = (  # among the four
    (1.0, 0.59, 0.15, 0.03),
    (0.59, 1.0, 0.02, -0.15),
    (0.15, 0.02, 1.0, 0.14),
    (0.03, -0.15, 0.14, 1.0),
)
SIDES_CORRELATIONS = (0.62, 0.76, -0.56, 0.71)  # the same quantity of the left and the right box
SINGLE_BOX_IMAGE_LEFT = 0.619  # share of single boxes in the image's left half
BOX_WIDTHS, BOX_HEIGHTS = (40, 528), (45, 942)  # the smallest and the largest

VISIBLE = 0.4  # a box ends where its opacity falls below this share of the full one
MIN_LUNG_SHARE = 0.52  # of a box, weighted with visibility; wider and the lungs' shape vanishes
MAX_OVERLAP = 0.1  # of the smaller box; 99 % of the challenge's boxes do not overlap at all


def draw_opacities(rng: np.random.Generator, lungs: Map, heart: Map) -> tuple[Map, list[Box]]:
    """Draw the consolidations of one image.

    Args:
        lungs: (512, 512) in 0..1; nothing is drawn outside.
        heart: (512, 512) in 0..1; what lies behind it is hardly visible.

    Returns:
        (512, 512) in 0..1, and the box of each consolidation's visible part; at least one.
    """
    n_boxes = 1 + int(rng.choice(len(BOX_COUNT_SHARES), p=BOX_COUNT_SHARES))
    left_share = SINGLE_BOX_IMAGE_LEFT if n_boxes == 1 else 0.5
    first_side = -1 if rng.random() < left_share else 1
    window = soften(lungs, 3) * (1 - 0.4 * heart)
    total = np.zeros_like(lungs)
    boxes: list[Box] = []
    first = np.zeros(4)
    while not boxes:
        for k in range(n_boxes):
            for _ in range(80):
                deviation = _sample_deviation(rng, first if k == 1 else None)
                wanted = _place_box(deviation, n_boxes, first_side * (-1) ** k)
                if not _fits(wanted, window, boxes):
                    continue
                opacity = _draw_opacity(rng, wanted) * window
                box = _visible_box(opacity)
                if all(_overlap(box, other) <= MAX_OVERLAP for other in boxes):
                    first = deviation if k == 0 else first
                    total = np.maximum(total, opacity)
                    boxes.append(box)
                    break
    return total, boxes


def _sample_deviation(rng: np.random.Generator, opposite: np.ndarray | None) -> np.ndarray:
    """Draw (4,) standard deviations from BOX_MEANS, resembling those of the box opposite."""
    fresh = rng.multivariate_normal(np.zeros(4), BOX_CORRELATIONS)
    if opposite is None:
        return fresh
    rho = np.array(SIDES_CORRELATIONS)
    return rho * opposite + np.sqrt(1 - rho**2) * fresh


def _place_box(deviation: np.ndarray, n_boxes: int, side: int) -> Box:
    """Turn standard deviations into a box in full-size pixels; side -1 is the image's left half."""
    log_width, log_height, distance, y = np.array(BOX_MEANS[n_boxes - 1]) + BOX_STDS * deviation
    width, height = float(np.exp(log_width)), float(np.exp(log_height))
    return MIDLINE + side * distance - width / 2, y - height / 2, width, height


def _fits(box: Box, window: Map, boxes: list[Box]) -> bool:
    """Tell whether a box has a possible size, lies mostly in a lung and apart from the others."""
    x, y, width, height = box
    if not (BOX_WIDTHS[0] < width < BOX_WIDTHS[1] and BOX_HEIGHTS[0] < height < BOX_HEIGHTS[1]):
        return False
    if min(x, y, SIZE - x - width, SIZE - y - height) < 0:
        return False
    x0, y0, x1, y1 = (int(v * SCALE) for v in (x, y, x + width, y + height))
    inside = window[y0:y1, x0:x1].mean() > MIN_LUNG_SHARE
    return bool(inside) and all(_overlap(box, other) == 0 for other in boxes)


def _overlap(a: Box, b: Box) -> float:
    """Return the common area of two boxes as a share of the smaller one."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])


def _draw_opacity(rng: np.random.Generator, box: Box) -> Map:
    """Draw one patchy, ill-defined consolidation that about fills a box: (512, 512) in 0..1."""
    x, y, width, height = (v * SCALE for v in box)
    columns = (np.arange(SIZE * SCALE, dtype=np.float32) - x) / width * 2 - 1
    rows = (np.arange(SIZE * SCALE, dtype=np.float32) - y) / height * 2 - 1
    power = rng.uniform(1.9, 2.6)  # between an ellipse and a rectangle
    radius = (np.abs(rows[:, None]) ** power + np.abs(columns) ** power) ** (1 / power)
    ragged = radius + 0.15 * fractal_noise(rng, (8, 16, 32))
    core = 1 / (1 + np.exp((ragged - 1.02) / rng.uniform(0.07, 0.16)))
    patches = np.clip(0.85 + 0.14 * fractal_noise(rng, (12, 24, 48)), 0.35, 1.1)
    return np.asarray(core * patches, np.float32)


def _visible_box(opacity: Map) -> Box:
    """Return the box around the largest visible part of an opacity, whole full-size pixels."""
    visible = (soften(opacity, 2) > VISIBLE).astype(np.uint8)
    _, _, parts, _ = cv2.connectedComponentsWithStats(visible)
    largest = parts[1:][np.argmax(parts[1:, cv2.CC_STAT_AREA])]  # part 0 is the background
    x, y, width, height = (float(round(v / SCALE)) for v in largest[:4])
    return x, y, width, height
