"""The types that pass between the stages: Target and Batch in, Detections and Losses out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GLOBAL_LOSS_WEIGHT = 0.1  # of the whole-image classification; the original release


@dataclass(frozen=True, eq=False)
class Target:
    """What is known of one image.

    Attributes:
        boxes_xyxy: (M, 4) float32, pixels of the network input; M may be 0.
        category: the image's class, an index into `annotations.CLASS_NAMES`.
    """

    boxes_xyxy: Tensor
    category: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that go through the network together.

    Attributes:
        images: (B, 1, H, W) float32, grey, in [0, 1].
        targets: one for each image.
        ids: the images' patientIds.
    """

    images: Tensor
    targets: tuple[Target, ...]
    ids: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """Copy images and boxes to `device`."""
        targets = tuple(
            Target(target.boxes_xyxy.to(device, non_blocking=True), target.category)
            for target in self.targets
        )
        return Batch(self.images.to(device, non_blocking=True), targets, self.ids)

    def pin_memory(self) -> Batch:
        """Move to page-locked memory; the data loader calls this when it feeds a GPU."""
        targets = tuple(
            Target(target.boxes_xyxy.pin_memory(), target.category) for target in self.targets
        )
        return Batch(self.images.pin_memory(), targets, self.ids)


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image.

    Attributes:
        boxes_xyxy: (N, 4) float32, pixels of the network input, inside the image.
        scores: (N,) float32 in [0, 1], descending.
        class_probs: (3,) float32, probabilities of the image's classes.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    class_probs: Tensor


@dataclass(frozen=True, eq=False)
class Losses:
    """The three parts of the loss, each a scalar: the mean over the batch's images."""

    classification: Tensor
    regression: Tensor
    global_classification: Tensor

    def total(self) -> Tensor:
        """Return the sum that is minimised: classification + regression + 0.1 x global."""
        return (
            self.classification
            + self.regression
            + GLOBAL_LOSS_WEIGHT * self.global_classification
        )
