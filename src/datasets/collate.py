"""Samples to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from src.datasets.detection_dataset import Sample
from src.structures import Batch, images_as_float


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack the images of samples of one size; boxes stay apart, for their numbers differ.

    Images stay uint8 where all are.
    """
    images = [sample.image for sample in samples]
    if len({image.dtype for image in images}) > 1:
        images = [images_as_float(image) for image in images]
    return Batch(
        images=torch.stack(images),  # (B, 1, S, S)
        targets=tuple(sample.target for sample in samples),
        ids=tuple(sample.patient_id for sample in samples),
        file_sizes=tuple(sample.file_size for sample in samples),
    )
