"""The feature pyramid: P2..P7 from the encoder's C2..C5 (paper, section 3, figure 4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from src.structures import PAPER_LEVELS

LAST_ENCODER_LEVEL = 5


class FeaturePyramid(nn.Module):
    """Merge the encoder's maps top down, and add coarser levels below C5."""

    def __init__(
        self,
        in_channels: tuple[int, int, int, int],
        *,
        levels: tuple[int, ...] = PAPER_LEVELS,
        width: int = 256,
    ) -> None:
        """Build the pyramid.

        Args:
            in_channels: channels of C2, C3, C4 and C5.
            levels: consecutive levels that start at 2..5 and end at 5..7.
            width: channels of every output.

        Raises:
            ValueError: `levels` are not of that form.
        """
        super().__init__()
        first, last = levels[0], levels[-1]
        if levels != tuple(range(first, last + 1)) or not 2 <= first <= LAST_ENCODER_LEVEL <= last:
            raise ValueError(
                f"pyramid levels {levels}: need consecutive ones such as {PAPER_LEVELS}"
            )
        if last > 7:
            raise ValueError(f"pyramid levels {levels}: the last one is at most 7")
        channels = dict(zip((2, 3, 4, 5), in_channels, strict=True))
        self.merged_levels = tuple(range(LAST_ENCODER_LEVEL, first - 1, -1))  # top down
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels[level], width, kernel_size=1) for level in self.merged_levels
        )
        self.output = nn.ModuleList(
            nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in self.merged_levels
        )
        # P6 comes from C5, P7 from P6.
        self.coarser = nn.ModuleList(
            nn.Conv2d(in_channels[-1] if level == 6 else width, width, 3, stride=2, padding=1)
            for level in range(6, last + 1)
        )

    def forward(self, features: tuple[Tensor, Tensor, Tensor, Tensor]) -> list[Tensor]:
        """Compute the pyramid.

        Args:
            features: C2, C3, C4, C5, each half the size of the one before.

        Returns:
            One (B, width, H / 2^l, W / 2^l) map for each level l, finest first.
        """
        outputs: list[Tensor] = []
        merged: Tensor | None = None
        for level, lateral, output in zip(
            self.merged_levels, self.lateral, self.output, strict=True
        ):
            x = lateral(features[level - 2])
            merged = x if merged is None else x + F.interpolate(merged, scale_factor=2.0)
            outputs.insert(0, output(merged))
        x = features[-1]
        for i, conv in enumerate(self.coarser):
            x = conv(x if i == 0 else F.relu(x))
            outputs.append(x)
        return outputs
