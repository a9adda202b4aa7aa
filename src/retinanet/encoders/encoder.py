"""The contract that every encoder keeps: four feature maps, C2 to C5, at exact strides."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """A convolutional body without its classifier.

    Subclasses set `out_channels` and implement `forward`. The input's sides are multiples of 32;
    the maps' sides are exactly a quarter, an eighth, a sixteenth and a thirty-second of them.

    Attributes:
        out_channels: channels of C2, C3, C4 and C5.
    """

    out_channels: tuple[int, int, int, int]

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the feature maps.

        Args:
            images: (B, 3, H, W) in [0, 1], three equal channels, H and W multiples of 32.

        Returns:
            C2, C3, C4, C5: (B, out_channels[i], H / 2^(i+2), W / 2^(i+2)).
        """
