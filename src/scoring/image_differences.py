"""Which of two detectors is better in each image, and in which images they differ most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from src.scoring.bootstrap import ratio
from src.scoring.comparison import ROUNDING, ComparedRun


class ImageDifference(NamedTuple):
    """An image as two detectors see it.

    Attributes:
        image: its row.
        score_a, score_b: the challenge's score of the image, NaN where it does not count.
        difference: the first less the second. An image that does not count for one of the two
            leaves its mean as it is, and takes part with that mean; one that counts for neither
            has the difference 0.
        better: -1 where the second is better, 1 where the first is, 0 where they are equal. Where
            there is no true box, no box is better than any.
    """

    image: int
    score_a: float
    score_b: float
    difference: float
    better: int


def compare_images(run_a: ComparedRun, run_b: ComparedRun) -> list[ImageDifference]:
    """Compare two runs image by image; the images that differ most come first."""
    scores = np.array([run_a.image_scores, run_b.image_scores])
    counts = ~np.isnan(scores)
    means = ratio(np.nan_to_num(scores).sum(axis=1), counts.sum(axis=1))
    filled = np.where(counts, scores, np.nan_to_num(means)[:, None])
    differences = np.where(counts.any(axis=0), filled[0] - filled[1], 0.0)
    # An image that may not count has no true box: to leave it alone is the best that can be done.
    best = np.where(counts, scores, np.inf)
    better = (best[0] > best[1] + ROUNDING).astype(int) - (best[1] > best[0] + ROUNDING)
    order = np.argsort(-np.abs(differences), kind="stable").tolist()
    return [
        ImageDifference(
            image=image,
            score_a=float(scores[0, image]),
            score_b=float(scores[1, image]),
            difference=float(differences[image]),
            better=int(better[image]),
        )
        for image in order
    ]
