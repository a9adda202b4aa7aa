"""The simple feature pyramid of ViTDet (Li et al. 2022, arXiv:2203.16527)."""

from __future__ import annotations

from timm.layers import LayerNorm2d
from torch import Tensor, nn


class SimplePyramid(nn.Module):
    """Four strides from the one map of a plain network; ViTDet, section 3."""

    def __init__(self, n_channels: int) -> None:
        """Build the layers for a map of stride 16 with `n_channels` channels."""
        super().__init__()
        half, quarter = n_channels // 2, n_channels // 4
        self.to_stride_4 = nn.Sequential(
            nn.ConvTranspose2d(n_channels, half, kernel_size=2, stride=2),
            LayerNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, kernel_size=2, stride=2),
        )
        self.to_stride_8 = nn.ConvTranspose2d(n_channels, half, kernel_size=2, stride=2)
        self.to_stride_32 = nn.MaxPool2d(kernel_size=2, stride=2)

    def forward(self, c4: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Turn C4 (B, C, H, W) into C2 to C5 with C/4, C/2, C and C channels."""
        return self.to_stride_4(c4), self.to_stride_8(c4), c4, self.to_stride_32(c4)
