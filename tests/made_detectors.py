"""Synthetic detectors of a quality that is known, over the same images."""

import numpy as np

from src.metric import image_scores
from src.scoring.comparison import ComparedRun
from tests.made_scored_images import scored_images


def make_truth(rng, n_images):
    """Draw true boxes: none in half of the images, else one or two."""
    counts = rng.integers(1, 3, n_images) * (rng.random(n_images) < 0.5)
    return [
        np.hstack([rng.uniform(0, 60, (n, 2)) + [[200 * i, 0] for i in range(n)],
                   rng.uniform(30, 60, (n, 2))]) if n else np.zeros((0, 4))
        for n in counts
    ]  # fmt: skip


def detect(rng, truth, *, noise=6.0, scale=1.0, name="made", threshold=0.4):
    """Find boxes near the true ones, and false ones.

    Args:
        noise: pixels that boxes lie beside the true ones, and what its scores suffer from.
        scale: exponent on all scores, which changes no order.
        threshold: of a score of scale 1, over which a box counts.
    """
    images, probs = [], []
    for true in truth:
        hits = true + rng.normal(0, noise, true.shape)
        hits[:, 2:] = np.abs(hits[:, 2:]) + 1
        false = rng.uniform([600, 600, 20, 20], [900, 900, 60, 60], (rng.integers(0, 3), 4))
        boxes = np.concatenate([hits, false])
        raw = np.concatenate([np.full(len(hits), 0.8), np.full(len(false), -0.8)])
        scores = 1 / (1 + np.exp(-raw - rng.normal(0, noise / 5, len(raw))))
        order = np.argsort(-scores, kind="stable")
        images.append((boxes[order], scores[order] ** scale, true))
        has_box = 1.6 * (len(true) > 0) - 0.8
        probs.append((1 / (1 + np.exp(-has_box - rng.normal(0, noise / 5)))) ** scale)
    data = scored_images(images, head=probs)
    chosen = data.predicted.kept(data.scores > threshold**scale)
    return ComparedRun(
        name=name,
        data=data,
        image_scores=image_scores(chosen, data.true),
        chosen=chosen,
        confidences=data.scores[data.scores > threshold**scale],
        true=data.true,
    )
