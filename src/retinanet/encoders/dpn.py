"""The DPN-92 encoder (Chen et al. 2017, arXiv:1707.01629) on pretrainedmodels' network."""

import torch
from pretrainedmodels.models.dpn import DPN
from torch import Tensor, nn

from src.retinanet.encoders.encoder import Encoder
from src.retinanet.encoders.weight_sources import HubFile, WeightSource, old_server
from src.retinanet.settings import Normalisation

# The last block of each stride.
LEVEL_ENDS = ("conv2_3", "conv3_4", "conv4_20", "conv5_bn_ac")


def build(name: str, img_size: int | None) -> Encoder:
    return DPN92Encoder()


def weight_sources(name: str) -> tuple[WeightSource, ...]:
    return HubFile("timm/dpn92.mx_in1k"), old_server("dpn92_extra-fda993c95.pth")


def normalisation(name: str) -> Normalisation:
    """Return those of MXNet's training: whole grey levels, and one factor for all channels."""
    return Normalisation(mean=(124 / 255, 117 / 255, 104 / 255), deviation=(1 / (0.0167 * 255),))


class DPN92Encoder(Encoder):
    """DPN-92 without its classifier; pretrainedmodels' parameter names."""

    out_channels = (336, 704, 1552, 2688)

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        net = DPN(
            num_init_features=64,
            k_r=96,
            groups=32,
            k_sec=(3, 4, 20, 3),
            inc_sec=(16, 32, 24, 128),
        )
        self.features: nn.Sequential = net.features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute C2 to C5, the residual and dense path side by side; shapes as in `Encoder`."""
        maps: list[Tensor] = []
        x = images
        for name, block in self.features.named_children():
            x = block(x)  # a pair (residual path, dense path) inside a stage
            if name in LEVEL_ENDS:
                # The next stage joins the pair as well: hand it the joined map.
                x = torch.cat(x, dim=1) if isinstance(x, tuple) else x
                maps.append(x)
        c2, c3, c4, c5 = maps
        return c2, c3, c4, c5
