"""The three heads: boxes and opacity score at every anchor, the class of the whole image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.retinanet.settings import PAPER_ANCHORS
from src.structures import CLASS_NAMES

N_ANCHORS = PAPER_ANCHORS.n_per_position  # at each position, unless an experiment has others
PRIOR = 0.01  # an untrained net scores every anchor with this; the original release


class BoxHead(nn.Module):
    """Regress dx, dy, dw, dh at every anchor; shared by all levels."""

    def __init__(self, width: int, depth: int, n_anchors: int = N_ANCHORS) -> None:
        super().__init__()
        self.layers = _conv_stack(width, depth)
        self.output = nn.Conv2d(width, n_anchors * 4, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map one level's (B, width, H, W) to deltas (B, H*W*9, 4)."""
        out = self.output(self.layers(x))
        return out.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4)  # (B, 9*4, H, W) -> (B, A, 4)


class ClassHead(nn.Module):
    """Score every anchor for an opacity; shared by all levels."""

    def __init__(self, width: int, depth: int, dropout: float, n_anchors: int = N_ANCHORS) -> None:
        super().__init__()
        self.layers = _conv_stack(width, depth)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Conv2d(width, n_anchors, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map one level's (B, width, H, W) to logits (B, H*W*9)."""
        out = self.output(self.dropout(self.layers(x)))
        return out.permute(0, 2, 3, 1).reshape(x.shape[0], -1)  # (B, 9, H, W) -> (B, A)


class GlobalHead(nn.Module):
    """Classify the whole image from C5."""

    def __init__(self, in_channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, kernel_size=3)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * width, len(CLASS_NAMES))

    def forward(self, c5: Tensor) -> Tensor:
        """Map C5 (B, in_channels, H, W), H and W at least 6, to logits (B, 3)."""
        x = F.relu(self.conv(F.max_pool2d(c5, 2)))
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)  # (B, 2*width)
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits


def initialise_pyramid_and_heads(modules: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / (k*k*out)), the original release's rule.

    Biases and the linear layer keep PyTorch's default. The outputs of box and class head start
    at 0, the class head's bias at the prior.
    """
    for module in modules.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    for module in modules.modules():
        if isinstance(module, BoxHead | ClassHead):
            nn.init.zeros_(module.output.weight)
            bias = -math.log((1 - PRIOR) / PRIOR) if isinstance(module, ClassHead) else 0.0
            nn.init.constant_(module.output.bias, bias)  # type: ignore[arg-type]


def _conv_stack(width: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
