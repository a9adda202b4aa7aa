"""What the numbers of the literature are computed from: found and true boxes of the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from src.metric import BoolArray, Boxes, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """Predictions of images whose truth is known.

    Attributes:
        ids: I names of the images.
        patients: (I,) the patient that each image belongs to, any integers.
        predicted: K boxes, xywh in pixels of the files, best first within each image; after the
            suppression of overlaps, and of all scores.
        scores: (K,) of the predicted boxes, descending within each image.
        true: the true boxes of the same images, xywh in pixels of the files.
        image_scores: name -> (I,) probabilities in [0, 1] that an image shows an opacity.
    """

    ids: Sequence[str]
    patients: IntArray
    predicted: Boxes
    scores: FloatArray
    true: Boxes
    image_scores: Mapping[str, FloatArray]

    @property
    def has_opacity(self) -> BoolArray:
        """Return which images have true boxes, (I,)."""
        return self.true.counts() > 0
