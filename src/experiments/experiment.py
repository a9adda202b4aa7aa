"""An experiment: the settings that a run is trained with, checked where a record is made.

Needs no PyTorch: command lines look experiments up before it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal

from src.datasets.sample_options import AUGMENTATION_LEVELS, BoxPoints, Reduction
from src.experiments.field_checks import Rule, check_fields
from src.retinanet.encoders import check_encoder_name
from src.structures import ENCODER_STRIDE, MIN_IMG_SIZE, PAPER_LEVELS, Grey

# What shapes the network's input and anchors: the same in training and prediction, and for all
# networks of an ensemble.
MUST_AGREE = ("img_size", "source_crop", "grey", "reduction", "pyramid_levels")
# What runs did before a setting came, where that is not its default today.
FORMERLY = {"grey": "range", "reduction": "subsample"}
MAX_IMG_SIZE = 4096  # pixels; radiographs have no more
PYRAMIDS = [tuple(range(first, last + 1)) for first in (2, 3, 4, 5) for last in (5, 6, 7)]

Count = Annotated[int, Rule(lambda n: n >= 1, "a whole number from 1")]
ImgSize = Annotated[
    int,
    Rule(
        lambda n: MIN_IMG_SIZE <= n <= MAX_IMG_SIZE and n % ENCODER_STRIDE == 0,
        f"a multiple of {ENCODER_STRIDE} from {MIN_IMG_SIZE} to {MAX_IMG_SIZE}",
    ),
]
Dropout = Annotated[float, Rule(lambda p: 0 <= p < 1, "a number from 0 to 1, 1 excluded")]
Level = Annotated[
    int,
    Rule(AUGMENTATION_LEVELS.__contains__, f"one of {', '.join(map(str, AUGMENTATION_LEVELS))}"),
]
Pyramid = Annotated[
    tuple[int, ...],
    Rule(PYRAMIDS.__contains__, "consecutive levels that begin with 2 to 5 and end with 5 to 7"),
]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that makes an experiment; the defaults are the paper's.

    Attributes:
        encoder: a name in `encoders.ENCODERS`, or `timm/<model>`.
        img_size: side of the network input, pixels; a multiple of 32, at least 192.
        source_crop: side of the central square of the file that is shown, its pixels; None
            shows the whole image.
        batch_size: images that go through the network together, on all GPUs.
        accumulate: batches to a training step, for a larger batch than memory holds.
        augmentation_level: a key of `sample_options.AUGMENTATION_LEVELS`.
        box_points: points of a box that are carried through a rotation.
        hflip: mirror every second training image.
        clip_boxes: cut boxes off at the border of the augmented image.
        grey: how stored values become grey, where they are not plain 8-bit: "viewer" as a DICOM
            viewer shows them, "range" from the darkest to the brightest pixel.
        reduction: how images shrink: "subsample" takes every n-th pixel, the paper's way, "area"
            the mean over the area, "auto" the paper's way for the challenge's images where n is
            whole, the mean for all others.
        pretrained: start the encoder from ImageNet weights.
        batch_norm: "frozen" statistics are the paper's way; without pretrained weights they
            would be 0 and 1 and normalise nothing. "train" lets them follow the batches. "auto"
            trains batch norm exactly where the encoder is not pretrained.
        dropout_class: before the class head's output.
        dropout_global: before the global head's linear layer.
        pyramid_levels: consecutive levels from 2..5 to 5..7.
        pyramid_width: channels of pyramid and heads.
        head_depth: 3x3 convolutions in box and class head before the output.
        optimizer: "adam", or "sgd" with momentum .95 and the second place's rates for each part.
        learning_rate: of Adam; of SGD the rate of pyramid, class head and global head.
        scheduler: "plateau" follows the validation regression loss (patience 4, factor .2),
            "milestones" divides by 10 after epochs 8, 16 and 20, "one_cycle" rises to the
            learning rate and falls to nothing over the whole run.
        clip_norm: the gradient's largest norm.
        n_epochs: of a whole training.
    """

    encoder: str
    img_size: ImgSize = 512
    source_crop: Count | None = None
    batch_size: Count
    accumulate: Count = 1
    augmentation_level: Level = 10
    box_points: BoxPoints = "thirds"
    hflip: bool = False
    clip_boxes: bool = False
    grey: Grey = "viewer"
    reduction: Reduction = "auto"
    pretrained: bool = True
    batch_norm: Literal["auto", "frozen", "train"] = "auto"
    dropout_class: Dropout = 0.5
    dropout_global: Dropout = 0.5
    pyramid_levels: Pyramid = PAPER_LEVELS
    pyramid_width: Count = 256
    head_depth: Annotated[int, Rule(lambda n: n >= 0, "a whole number from 0")] = 4
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Rule(lambda r: 0 < r < 10, "a number above 0, below 10")] = 1e-5
    scheduler: Literal["plateau", "milestones", "one_cycle"] = "plateau"
    clip_norm: Annotated[float, Rule(lambda n: n > 0, "a finite number above 0")] = 0.05
    n_epochs: Count = 15

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: one cannot be used; the message says which, and what is right.
        """
        check_fields(self)
        check_encoder_name(self.encoder)

    @property
    def trains_batch_norm(self) -> bool:
        """Say whether batch norm follows the batches."""
        if self.batch_norm == "auto":
            return not self.pretrained
        return self.batch_norm == "train"


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the settings that a run of an older version has stored.

    A setting that came later has its default there, or what runs did before it came.
    """
    defaults = {f.name: f.default for f in fields(Experiment) if f.default is not MISSING}
    return {**defaults, **FORMERLY, **settings}
