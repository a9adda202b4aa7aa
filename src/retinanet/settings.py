"""What stands beside a network's weights: its input, anchors, loss, and what becomes a candidate.

The defaults are the paper's, or the original release's. Can be imported without PyTorch:
experiments state these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from src.structures import BOX_LOSS_WEIGHT, GLOBAL_LOSS_WEIGHT


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What is subtracted from an encoder's input, and what the rest is divided by.

    Attributes:
        mean, deviation: of each channel, or one number for all; of values from 0 to 1.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def of_one_channel(self) -> Normalisation:
        """Return the means over the channels, for an encoder that takes grey as one channel."""
        return Normalisation(mean=(fmean(self.mean),), deviation=(fmean(self.deviation),))


@dataclass(frozen=True, kw_only=True)
class AnchorShapes:
    """The boxes at every position of a pyramid level (paper, section 3).

    Attributes:
        size: side of an anchor of ratio 1 and scale 1, in strides of its level.
        ratios: height / width.
        scales: of the side.
    """

    size: float = 4.0
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    scales: tuple[float, ...] = (2 ** (0 / 3), 2 ** (1 / 3), 2 ** (2 / 3))

    @property
    def n_per_position(self) -> int:
        return len(self.ratios) * len(self.scales)


BoxLoss = Literal["smooth_l1", "giou"]


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What the losses depend on beside the network's outputs.

    Attributes:
        alpha, gamma: of the focal loss.
        box_loss: "smooth_l1" or "giou", see `losses.box_loss`.
        beta: of the smooth L1 loss: below it the loss is quadratic.
        box_weight, global_weight: of the box loss and of the whole image's loss in the sum.
        positive_iou: an anchor answers for a true box that it overlaps by this or more.
        negative_iou: an anchor that overlaps every true box by less is background; those between
            the two are ignored.
    """

    alpha: float = 0.25
    gamma: float = 2.0
    box_loss: BoxLoss = "smooth_l1"
    beta: float = 1 / 9
    box_weight: float = BOX_LOSS_WEIGHT
    global_weight: float = GLOBAL_LOSS_WEIGHT
    positive_iou: float = 0.5
    negative_iou: float = 0.4


@dataclass(frozen=True, kw_only=True)
class CandidateLimits:
    """What is left of an image's boxes before non-maximum suppression.

    Attributes:
        min_score: candidates score more.
        min_share_of_top: of the image's best score; weaker boxes are dropped.
        voting_iou: each box becomes the mean of those that overlap it by more, see
            `boxes.vote_boxes`; 1 leaves all as they are, the paper's way.
    """

    min_score: float = 0.025
    min_share_of_top: float = 0.5
    voting_iou: float = 1.0


@dataclass(frozen=True, kw_only=True)
class WeakLimits:
    """Which boxes below the candidates' limits are saved beside them.

    They are never chosen. Average precision and FROC need them: both go on where the candidates
    end.

    Attributes:
        min_score: they score more.
        max_count: for an image; 0 saves none.
        max_iou: one that overlaps a better box by more is left out.
    """

    min_score: float = 0.005
    max_count: int = 100
    max_iou: float = 0.5

    def least_score(self, limits: CandidateLimits) -> float:
        """Return the score above which boxes are of use, candidates or weak."""
        return min(self.min_score, limits.min_score) if self.max_count else limits.min_score


# What ImageNet's classifiers were trained with: most of them, and those of TensorFlow's inception.
IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
INCEPTION = Normalisation(mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5))
PAPER_ANCHORS = AnchorShapes()
PAPER_LOSS = LossSettings()
PAPER_LIMITS = CandidateLimits()
DEFAULT_WEAK = WeakLimits()
NO_WEAK = WeakLimits(max_count=0)
