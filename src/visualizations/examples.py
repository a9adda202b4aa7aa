"""Images that stand for a validation fold, and a picture of them after an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.datasets.data_folder import ImageSource
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import Predictions, take_images
from src.prediction.presets import Postprocess
from src.visualizations.overlays import contact_sheet, draw_predictions

N_EXAMPLES = 4  # a row of a contact sheet


def pick_examples(n_boxes: Sequence[int], n_images: int) -> list[int]:
    """Take two images with boxes for each one without, as far as there are; always the same.

    Args:
        n_boxes: true boxes of each image.

    Returns:
        Indices of at most `n_images`, those with boxes first.
    """
    with_boxes = [image for image, n in enumerate(n_boxes) if n]
    without = [image for image, n in enumerate(n_boxes) if not n]
    n_without = max(n_images // 3, n_images - len(with_boxes))
    return with_boxes[: n_images - min(n_without, len(without))] + without[:n_without]


def draw_examples(source: ImageSource, predictions: Predictions) -> NDArray[np.uint8]:
    """Draw true and found boxes over a few images of a validation fold.

    Args:
        source: of the images.
        predictions: of the fold; the boxes are those of the plain preset.

    Returns:
        (H, W, 3), RGB: a row of pictures.
    """
    counts = np.diff(predictions.true_offsets).tolist()
    few = take_images(predictions, pick_examples(counts, N_EXAMPLES))
    chosen = choose_boxes(few, Postprocess())
    return contact_sheet(
        [
            draw_predictions(source.read(name), few, chosen, image)
            for image, name in enumerate(few.ids.tolist())
        ]
    )
