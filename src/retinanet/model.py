"""RetinaNet: encoder, pyramid and three heads (paper, section 3, figure 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.retinanet.anchors import count_anchors, make_anchors
from src.retinanet.encoders.encoder import Encoder
from src.retinanet.fpn import FeaturePyramid
from src.retinanet.heads import BoxHead, ClassHead, GlobalHead, initialise_pyramid_and_heads
from src.retinanet.settings import (
    PAPER_ANCHORS,
    PAPER_LIMITS,
    AnchorShapes,
    CandidateLimits,
    Normalisation,
)
from src.structures import ENCODER_STRIDE, MIN_IMG_SIZE, PAPER_LEVELS, RawOutputs


class Scored(NamedTuple):
    """What the network says before any box is located.

    Attributes:
        pyramid: one (B, width, H / 2^l, W / 2^l) map for each level l.
        scores: (B, A) float32 probability of an opacity at each anchor.
        class_log_probs: (B, 3) float32, log-probabilities of the image's classes.
    """

    pyramid: list[Tensor]
    scores: Tensor
    class_log_probs: Tensor


class RetinaNet(nn.Module):
    """Detect opacities in grey images and classify the whole image.

    Attributes:
        levels, anchor_shapes: where its anchors lie.
        limits: which of its outputs become candidates.
        input_mean, input_deviation: (channels, 1, 1), what the encoder's input is normalised by;
            None leaves it. They are part of the state dict: predictions need no other source.
    """

    input_mean: Tensor | None
    input_deviation: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        *,
        levels: tuple[int, ...] = PAPER_LEVELS,
        width: int = 256,
        head_depth: int = 4,
        dropout_class: float = 0.5,
        dropout_global: float = 0.5,
        train_batch_norm: bool = False,
        anchor_shapes: AnchorShapes = PAPER_ANCHORS,
        limits: CandidateLimits = PAPER_LIMITS,
        normalisation: Normalisation | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            encoder: gives C2..C5; keeps its weights.
            levels: pyramid levels.
            width: channels of pyramid and heads.
            head_depth: 3x3 convolutions in box and class head before the output.
            dropout_class: before the class head's output.
            dropout_global: before the global head's linear layer.
            train_batch_norm: False freezes the statistics, also in training; scale and shift are
                trained either way.
            anchor_shapes: at each position of each level.
            limits: which outputs become candidates.
            normalisation: of the encoder's input; None, the paper's way, leaves grey in [0, 1].
        """
        super().__init__()
        mean, deviation = (
            (None, None)
            if normalisation is None
            else (_by_channel(normalisation.mean), _by_channel(normalisation.deviation))
        )
        self.register_buffer("input_mean", mean)
        self.register_buffer("input_deviation", deviation)
        self.in_channels = encoder.in_channels
        self.levels = levels
        self.anchor_shapes = anchor_shapes
        self.limits = limits
        self.train_batch_norm = train_batch_norm
        self.pyramid = FeaturePyramid(encoder.out_channels, levels=levels, width=width)
        n_anchors = anchor_shapes.n_per_position
        self.box_head = BoxHead(width, head_depth, n_anchors)
        self.class_head = ClassHead(width, head_depth, dropout_class, n_anchors)
        self.global_head = GlobalHead(encoder.out_channels[-1], width, dropout_global)
        initialise_pyramid_and_heads(self)
        self.encoder: nn.Module = encoder
        self._anchors: dict[tuple[int, int, torch.device], Tensor] = {}

    def train(self, mode: bool = True) -> RetinaNet:
        """Switch between training and evaluation; frozen batch norm stays in evaluation.

        Kept from the original: statistics are frozen from the start, because batches of 3 to 12
        images are too small to estimate them.
        """
        super().train(mode)
        if not self.train_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(
        self, images: Tensor, *, needed: Tensor | None = None, min_score: float | None = None
    ) -> RawOutputs:
        """Run the network.

        The box head runs only where its output is used: given `needed` or `min_score`, the deltas
        of all other levels of an image have no meaning; most are 0.

        Args:
            images: (B, 1, H, W) in [0, 1]; H and W multiples of 32, at least 192.
            needed: (B, levels) bool, levels whose boxes are needed whatever their scores.
            min_score: levels are needed as well where a score is greater.
        """
        pyramid, scores, class_log_probs = self.score(images)
        if min_score is not None:
            promising = self.by_level(scores > min_score, images)
            needed = promising if needed is None else promising | needed
        return RawOutputs(scores, self.locate(pyramid, needed), class_log_probs)

    def score(self, images: Tensor) -> Scored:
        """Run all but the box head over images (B, 1, H, W)."""
        check_input_size(images.shape[-2], images.shape[-1])
        c2, c3, c4, c5 = self.encoder(self._encoder_input(images))
        pyramid = self.pyramid((c2, c3, c4, c5))
        logits = torch.cat([self.class_head(level) for level in pyramid], dim=1)
        class_logits = self.global_head(c5)
        # Half precision ends here: probabilities near 0 and exp() of deltas need float32.
        return Scored(pyramid, logits.float().sigmoid(), class_logits.float().log_softmax(dim=1))

    def _encoder_input(self, images: Tensor) -> Tensor:
        """Turn grey images (B, 1, H, W) into what the encoder takes: (B, in_channels, H, W)."""
        if self.input_mean is not None and self.input_deviation is not None:
            images = (images - self.input_mean) / self.input_deviation
        return images.expand(-1, self.in_channels, -1, -1)

    def locate(self, pyramid: list[Tensor], needed: Tensor | None = None) -> Tensor:
        """Run the box head.

        In training at least one level runs, so that every parameter has a gradient, as after a
        full pass, and so that processes that train together stay in step. A level runs on 1, 2,
        4, ... images, some of which do not need it: a GPU searches the fastest convolution again
        for every new number of images.

        Args:
            pyramid: of `score`.
            needed: (B, levels) bool, where; None runs it everywhere.

        Returns:
            (B, A, 4) float32 deltas, without meaning where not needed.
        """
        if needed is None:
            return torch.cat([self.box_head(level).float() for level in pyramid], dim=1)
        counts = needed.sum(dim=0).tolist()  # one transfer from the device
        if self.training and not any(counts):
            counts[-1] = 1  # the coarsest level costs nothing
        counts = [1 << (count - 1).bit_length() if count else 0 for count in counts]
        order = needed.T.int().argsort(dim=1, descending=True, stable=True)  # who needs it first
        return torch.cat(
            [
                self._locate_on(level, images[:count])
                for level, images, count in zip(pyramid, order, counts, strict=True)
            ],
            dim=1,
        )

    def _locate_on(self, level: Tensor, images: Tensor) -> Tensor:
        """Run the box head over one level (B, width, H, W) of some images: (B, H*W*9, 4)."""
        if len(images) == len(level):
            return self.box_head(level).float()
        n_anchors = level.shape[-2] * level.shape[-1] * self.anchor_shapes.n_per_position
        deltas = level.new_zeros((len(level), n_anchors, 4), dtype=torch.float32)
        if not len(images):
            return deltas
        return deltas.index_copy(0, images, self.box_head(level[images]).float())

    def by_level(self, flags: Tensor, images: Tensor) -> Tensor:
        """Say which levels hold an anchor with a flag: (B, A) bool -> (B, levels) bool."""
        height, width = images.shape[-2:]
        size, shapes = (height, width), self.anchor_shapes
        counts = [count_anchors(size, level, shapes) for level in self.levels]
        return torch.stack([part.any(dim=1) for part in flags.split(counts, dim=1)], dim=1)

    def anchors(self, images: Tensor) -> Tensor:
        """Return the anchors (A, 4) for images (B, 1, H, W), kept for the next call."""
        height, width = images.shape[-2:]
        key = (height, width, images.device)
        if key not in self._anchors:
            anchors = make_anchors((height, width), self.levels, self.anchor_shapes)
            self._anchors[key] = anchors.to(images.device)
        return self._anchors[key]


def _by_channel(numbers: tuple[float, ...]) -> Tensor:
    return torch.tensor(numbers)[:, None, None]  # (channels, 1, 1)


def check_input_size(height: int, width: int) -> None:
    """Refuse sizes that the network cannot take.

    Raises:
        ValueError: too small for the global head, or not a multiple of the encoder's stride.
    """
    if min(height, width) < MIN_IMG_SIZE:
        raise ValueError(
            f"input of {height} x {width} px: the global head needs inputs of {MIN_IMG_SIZE} px "
            f"or more"
        )
    if height % ENCODER_STRIDE or width % ENCODER_STRIDE:
        raise ValueError(f"input of {height} x {width} px: needs multiples of {ENCODER_STRIDE}")
