"""Random images with found and true boxes, to compute numbers from."""

from dataclasses import replace

import numpy as np

from src.metric import Boxes
from src.scoring.scored_images import ScoredImages


def table_of(parts):
    """Lay the boxes of each image out in one table."""
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return Boxes(np.concatenate([np.zeros((0, 4)), *parts]), offsets)


def scored_images(images, patients=None, **image_scores):
    """Gather images, each (found boxes, scores, true boxes); best first."""
    found, scores, true = zip(*images, strict=True)
    return ScoredImages(
        ids=[f"image {i}" for i in range(len(images))],
        patients=np.arange(len(images)) if patients is None else np.array(patients),
        predicted=table_of([np.reshape(boxes, (-1, 4)) for boxes in found]),
        scores=np.concatenate([np.zeros(0), *scores]),
        true=table_of([np.reshape(boxes, (-1, 4)) for boxes in true]),
        image_scores={name: np.array(values) for name, values in image_scores.items()},
    )


def random_images(rng, n_images, *, grid=None, ties_within=False, max_boxes=12):
    """Make images with 0 to 4 true boxes and found boxes that hit some of them.

    Args:
        grid: scores are multiples of 1 / grid, so that images share them; None for all different.
        ties_within: an image may have a score several times.
        max_boxes: found boxes of an image are fewer.
    """
    images = []
    for _ in range(n_images):
        n_true, n_found = rng.integers(0, [5, max_boxes]) * (rng.random(2) < [0.6, 0.8])
        true = np.hstack([rng.uniform(0, 60, (n_true, 2)), rng.uniform(20, 60, (n_true, 2))])
        around = true if n_true else np.array([[20.0, 20, 40, 40]])
        found = around[rng.integers(0, len(around), n_found)]
        found = found + rng.normal(0, 4, (n_found, 4)) * rng.random((n_found, 1))
        is_wrong = (rng.random(n_found) < 0.4) | (n_true == 0)
        found[is_wrong, :2] += 200
        found = found[np.argsort(is_wrong + rng.normal(0, 0.6, n_found))]
        scores = rng.random(n_found)
        if grid is not None:
            scores = rng.choice(grid, n_found, replace=ties_within) / grid
        images.append((found, np.sort(scores)[::-1], true))
    has_opacity = np.array([len(true) > 0 for _, _, true in images])
    probs = rng.beta(2, 4, n_images) + 0.3 * has_opacity
    return scored_images(
        images,
        patients=rng.integers(0, max(1, n_images // 2), n_images),
        head=np.round(probs.clip(0, 1), 1 if grid else 9),
        best_box=[scores.max(initial=0) * (1 if len(true) else 0.8) for _, scores, true in images],
    )


def chosen_images(data, rows):
    """Return the images of some rows; one that comes twice is there twice."""

    def boxes_of(boxes):
        return [boxes.xywh[slice(*boxes.offsets[row : row + 2])] for row in rows]

    places = [np.arange(*data.predicted.offsets[row : row + 2]) for row in rows]
    return replace(
        data,
        ids=[f"image {i}" for i in range(len(rows))],
        patients=data.patients[rows],
        predicted=table_of(boxes_of(data.predicted)),
        scores=data.scores[np.concatenate([np.zeros(0, dtype=np.int64), *places])],
        true=table_of(boxes_of(data.true)),
        image_scores={name: scores[rows] for name, scores in data.image_scores.items()},
    )


def ones(data):
    """Weights of the images as they are, one draw."""
    return np.ones((1, len(data.ids)), dtype=np.int64)
