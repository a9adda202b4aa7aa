"""Samples to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from src.datasets.detection_dataset import Sample
from src.structures import Batch


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack the images of samples of one size; boxes stay apart, for their numbers differ."""
    return Batch(
        images=torch.stack([sample.image for sample in samples]),  # (B, 1, S, S)
        targets=tuple(sample.target for sample in samples),
        ids=tuple(sample.patient_id for sample in samples),
        file_sizes=tuple(sample.file_size for sample in samples),
    )
