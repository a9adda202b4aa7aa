"""An experiment: the settings that a run is trained with, checked where a record is made.

Needs no PyTorch: command lines look experiments up before it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal

from src.datasets.sample_options import AUGMENTATION_LEVELS, BoxPoints, Reduction
from src.retinanet.encoders import TIMM_PREFIX, check_encoder_name
from src.retinanet.encoders.named_weights import NAMED_WEIGHTS, NamedWeights
from src.retinanet.settings import (
    PAPER_ANCHORS,
    PAPER_LIMITS,
    PAPER_LOSS,
    AnchorShapes,
    BoxLoss,
    CandidateLimits,
    LossSettings,
)
from src.structures import ENCODER_STRIDE, MIN_IMG_SIZE, PAPER_LEVELS, Fit, Grey, ShownArea
from src.system.errors import InputError
from src.system.records import Rule, above, check_fields, within

# What shapes the network's input, and the way from its outputs to candidates: the same in training
# and prediction, and for all networks of an ensemble.
MUST_AGREE = (
    *("img_size", "source_crop", "fit", "grey", "reduction", "pyramid_levels", "anchor_size"),
    *("anchor_ratios", "anchor_scales", "min_score", "min_share_of_top", "voting_iou"),
)
# What has no effect unless another setting has this value.
NEEDS = (
    ("weight_decay", "optimizer", "adamw"),
    ("layer_decay", "optimizer", "adamw"),
    ("warmup_share", "scheduler", "cosine"),
)
# What runs did before a setting came, where that is not its default today.
FORMERLY = {"grey": "range", "reduction": "subsample"}
MAX_IMG_SIZE = 4096  # pixels; radiographs have no more
MAX_COUNT = 100_000  # of pixels, images, epochs: beyond it lies a slip of the hand
MAX_WIDTH, MAX_DEPTH = 4096, 64  # channels and layers of the heads
MAX_SHAPES = 16  # ratios or scales of anchors
PYRAMIDS = [tuple(range(first, last + 1)) for first in (2, 3, 4, 5) for last in (5, 6, 7)]

Count = Annotated[int, within(1, MAX_COUNT, "a whole number")]
ImgSize = Annotated[
    int,
    Rule(
        lambda n: MIN_IMG_SIZE <= n <= MAX_IMG_SIZE and n % ENCODER_STRIDE == 0,
        f"a multiple of {ENCODER_STRIDE} from {MIN_IMG_SIZE} to {MAX_IMG_SIZE}",
    ),
]
Width = Annotated[int, within(1, MAX_WIDTH, "a whole number")]
Depth = Annotated[int, within(0, MAX_DEPTH, "a whole number")]
Share = Annotated[float, within(0, 1)]
Overlap = Annotated[float, above(0, 1)]
Gamma = Annotated[float, within(0, 10)]
Weight = Annotated[float, within(0, 1000)]
AnchorSize = Annotated[float, above(0, 100)]
Shapes = Annotated[
    tuple[float, ...],
    Rule(
        lambda values: (
            1 <= len(set(values)) == len(values) <= MAX_SHAPES
            and all(0 < value <= 100 for value in values)
        ),
        f"1 to {MAX_SHAPES} different numbers above 0, at most 100",
    ),
]
MeanAndDeviation = Annotated[
    tuple[float, ...],
    Rule(
        lambda pair: len(pair) == 2 and abs(pair[0]) <= 10 and 0 < pair[1] <= 10,
        "a mean from -10 to 10 and a deviation above 0, at most 10",
    ),
]
WeightsName = Annotated[str, Rule(NAMED_WEIGHTS.__contains__, f"one of {', '.join(NAMED_WEIGHTS)}")]
Rate = Annotated[float, Rule(lambda r: 0 < r < 10, "a number above 0, below 10")]
Decay = Annotated[float, above(0, 1)]
Norm = Annotated[float, above(0, 1_000_000)]
BelowOne = Annotated[float, Rule(lambda p: 0 <= p < 1, "a number from 0 to 1, 1 excluded")]
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
        fit: how an image that is no square becomes one: "squeeze" shrinks each side by itself, the
            paper's way, "pad" keeps their ratio and fills up with black.
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
        pretrained: start the encoder from ImageNet weights, or from those that a name of
            `named_weights.NAMED_WEIGHTS` stands for.
        input_channels: of the encoder: grey is copied to 3, the paper's way, or taken as 1; the
            filters of pretrained weights for three are summed then.
        normalisation: of the encoder's input: "none", the paper's way, leaves grey in [0, 1];
            "encoder" is what its pretrained weights were trained with; or the mean and deviation
            of grey. Part of the network: its checkpoints and exports hold the numbers.
        batch_norm: "frozen" statistics are the paper's way; without pretrained weights they
            would be 0 and 1 and normalise nothing. "train" lets them follow the batches. "auto"
            trains batch norm exactly where the encoder is not pretrained.
        dropout_class: before the class head's output.
        dropout_global: before the global head's linear layer.
        pyramid_levels: consecutive levels from 2..5 to 5..7.
        pyramid_width: channels of pyramid and heads.
        head_depth: 3x3 convolutions in box and class head before the output.
        anchor_size, anchor_ratios, anchor_scales: see `AnchorShapes`.
        focal_alpha, focal_gamma, box_loss, smooth_l1_beta, box_loss_weight, global_loss_weight,
            positive_iou, negative_iou: see `LossSettings`.
        min_score, min_share_of_top, voting_iou: see `CandidateLimits`.
        optimizer: "adam", "adamw", or "sgd" with momentum .95 and the second place's rates for each
            part.
        learning_rate: of Adam; else the rate of pyramid, class head and global head.
        weight_decay: of AdamW; norms, biases and tables of positions do not decay.
        layer_decay: of AdamW with encoders of timm: factor of the learning rate from each layer to
            the one before it; pyramid and heads have the whole rate.
        scheduler: "plateau" follows the validation regression loss (patience 4, factor .2),
            "milestones" divides by 10 after epochs 8, 16 and 20, "one_cycle" rises to the
            learning rate and falls to nothing over the whole run, "cosine" rises over the
            `warmup_share` of the run and falls to nothing.
        warmup_share: of all steps.
        clip_norm: the gradient's largest norm.
        ema_decay: share of itself that the average of the weights keeps in each step; the average
            is validated and saved after each epoch. 0 keeps no average.
        n_epochs: of a whole training.
    """

    encoder: str
    img_size: ImgSize = 512
    source_crop: Count | None = None
    fit: Fit = "squeeze"
    batch_size: Count
    accumulate: Count = 1
    augmentation_level: Level = 10
    box_points: BoxPoints = "thirds"
    hflip: bool = False
    clip_boxes: bool = False
    grey: Grey = "viewer"
    reduction: Reduction = "auto"
    pretrained: bool | WeightsName = True
    input_channels: Literal[3, 1] = 3
    normalisation: Literal["none", "encoder"] | MeanAndDeviation = "none"
    batch_norm: Literal["auto", "frozen", "train"] = "auto"
    dropout_class: BelowOne = 0.5
    dropout_global: BelowOne = 0.5
    pyramid_levels: Pyramid = PAPER_LEVELS
    pyramid_width: Width = 256
    head_depth: Depth = 4
    anchor_size: AnchorSize = PAPER_ANCHORS.size
    anchor_ratios: Shapes = PAPER_ANCHORS.ratios
    anchor_scales: Shapes = PAPER_ANCHORS.scales
    focal_alpha: Share = PAPER_LOSS.alpha
    focal_gamma: Gamma = PAPER_LOSS.gamma
    box_loss: BoxLoss = PAPER_LOSS.box_loss
    smooth_l1_beta: Share = PAPER_LOSS.beta
    box_loss_weight: Weight = PAPER_LOSS.box_weight
    global_loss_weight: Weight = PAPER_LOSS.global_weight
    positive_iou: Overlap = PAPER_LOSS.positive_iou
    negative_iou: Overlap = PAPER_LOSS.negative_iou
    min_score: Share = PAPER_LIMITS.min_score
    min_share_of_top: Share = PAPER_LIMITS.min_share_of_top
    voting_iou: Overlap = PAPER_LIMITS.voting_iou
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Rate = 1e-5
    weight_decay: Share = 0.0
    layer_decay: Decay = 1.0
    scheduler: Literal["plateau", "milestones", "one_cycle", "cosine"] = "plateau"
    warmup_share: BelowOne = 0.0
    clip_norm: Norm = 0.05
    ema_decay: BelowOne = 0.0
    n_epochs: Count = 15

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: one cannot be used; the message says which, and what is right.
        """
        check_fields(self)
        check_encoder_name(self.encoder)
        if self.negative_iou > self.positive_iou:
            raise InputError(
                f"negative_iou cannot be {self.negative_iou}; it must be at most positive_iou, "
                f"which is {self.positive_iou}"
            )
        for name, setting, needed in NEEDS:
            value, has_effect = getattr(self, name), getattr(self, setting) == needed
            if value != getattr(Experiment, name) and not has_effect:  # of the class: the default
                raise InputError(f"{name} cannot be {value}; it needs {setting} {needed!r}")
        if self.layer_decay != 1 and not self.encoder.startswith(TIMM_PREFIX):
            raise InputError(
                f"layer_decay cannot be {self.layer_decay}; {self.encoder} has no numbered layers, "
                f"an encoder {TIMM_PREFIX}<model> has"
            )

        if self.named_weights is not None:
            self._check_fit(self.named_weights)

    def _check_fit(self, weights: NamedWeights) -> None:
        """Make sure that weights that were chosen by name are the encoder's."""
        needed = {"encoder": weights.encoder, "input_channels": weights.in_channels}
        for name, value in needed.items():
            if getattr(self, name) != value:
                raise InputError(
                    f"pretrained cannot be {self.pretrained!r} with {name} "
                    f"{getattr(self, name)!r}; these weights are of {name} {value!r}"
                )

    @property
    def named_weights(self) -> NamedWeights | None:
        """Return the table's entry of the encoder's weights, where they are chosen by name."""
        return NAMED_WEIGHTS[self.pretrained] if isinstance(self.pretrained, str) else None

    @property
    def trains_batch_norm(self) -> bool:
        """Say whether batch norm follows the batches."""
        if self.batch_norm == "auto":
            return not self.pretrained
        return self.batch_norm == "train"

    @property
    def rate_depends_on_length(self) -> bool:
        """Say whether the learning rate of a step depends on the number of epochs."""
        return self.scheduler in ("one_cycle", "cosine")

    @property
    def shown(self) -> ShownArea:
        """Return what the network input shows of an image."""
        return ShownArea(source_crop=self.source_crop, fit=self.fit)

    @property
    def anchor_shapes(self) -> AnchorShapes:
        """Return the shapes of the anchors at each position."""
        return AnchorShapes(
            size=self.anchor_size, ratios=self.anchor_ratios, scales=self.anchor_scales
        )

    @property
    def loss(self) -> LossSettings:
        """Return what the losses depend on."""
        return LossSettings(
            alpha=self.focal_alpha,
            gamma=self.focal_gamma,
            box_loss=self.box_loss,
            beta=self.smooth_l1_beta,
            box_weight=self.box_loss_weight,
            global_weight=self.global_loss_weight,
            positive_iou=self.positive_iou,
            negative_iou=self.negative_iou,
        )

    @property
    def limits(self) -> CandidateLimits:
        """Return which of the network's outputs become candidates."""
        return CandidateLimits(
            min_score=self.min_score,
            min_share_of_top=self.min_share_of_top,
            voting_iou=self.voting_iou,
        )


def find_changed(began: Experiment, now: Experiment) -> list[str]:
    """Name the settings that a training began with and that are others now.

    The number of epochs may change, unless the schedule depends on it.
    """
    names = [each.name for each in fields(Experiment)]
    if not now.rate_depends_on_length:
        names.remove("n_epochs")
    return [name for name in names if getattr(began, name) != getattr(now, name)]


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the settings that a run of an older version has stored.

    A setting that came later has its default there, or what runs did before it came.
    """
    defaults = {f.name: f.default for f in fields(Experiment) if f.default is not MISSING}
    return {**defaults, **FORMERLY, **settings}
