"""The NASNet-A-Mobile and PNASNet-5-Large encoders on pretrainedmodels' networks.

Two searches over the same kind of cell: Zoph et al. 2018, arXiv:1707.07012, and its progressive
successor, Liu et al. 2018, arXiv:1712.00559. Each cell takes the outputs of the two before it.
"""

from pretrainedmodels.models.nasnet_mobile import NASNetAMobile
from pretrainedmodels.models.pnasnet import PNASNet5Large
from torch import Tensor

from src.retinanet.encoders.encoder import Encoder
from src.retinanet.encoders.weight_sources import (
    HubFile,
    WebFile,
    WeightSource,
    old_server,
    timm_release,
)
from src.retinanet.settings import INCEPTION, Normalisation

WEIGHT_SOURCES: dict[str, tuple[WeightSource, ...]] = {
    "nasnet_mobile": (  # timm has none; the first is the copy that pretrainedmodels' source names
        WebFile(
            "https://github.com/veronikayurchuk/pretrained-models.pytorch/releases/download/v1.0/"
            "nasnetmobile-7e03cead.pth.tar"
        ),
        old_server("nasnetamobile-7e03cead.pth"),
    ),
    "pnasnet5large": (
        HubFile("timm/pnasnet5large.tf_in1k"),
        timm_release("v0.1-cadene/pnasnet5large-bf079911.pth"),
        old_server("pnasnet5large-bf079911.pth"),
    ),
}


def build(name: str, img_size: int | None) -> Encoder:
    return NASNetMobileEncoder() if name == "nasnet_mobile" else PNASNet5LargeEncoder()


def weight_sources(name: str) -> tuple[WeightSource, ...]:
    return WEIGHT_SOURCES[name]


def normalisation(name: str) -> Normalisation:
    return INCEPTION


class NASNetMobileEncoder(Encoder):
    """NASNet-A (4 @ 1056) without its classifier; pretrainedmodels' names after `net.`.

    The first convolution does not pad: it turns an even side n into n / 2 - 1, which the first
    cell turns into n / 4, so the strides are exact as the network stands.
    """

    out_channels = (44, 264, 528, 1056)
    net: NASNetAMobile

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.net = NASNetAMobile()
        del self.net.avg_pool, self.net.dropout, self.net.last_linear

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute C2 to C5, the last cell of each stride; shapes as in `Encoder`."""
        net = self.net
        conv0 = net.conv0(images)  # stride 2
        c2 = net.cell_stem_0(conv0)
        previous, x = c2, net.cell_stem_1(conv0, c2)  # stride 8
        for cell in (net.cell_0, net.cell_1, net.cell_2, net.cell_3):
            previous, x = x, cell(x, previous)
        c3 = x
        previous, x = c3, net.reduction_cell_0(c3, previous)
        for cell in (net.cell_6, net.cell_7, net.cell_8, net.cell_9):
            previous, x = x, cell(x, previous)
        c4 = x
        previous, x = c4, net.reduction_cell_1(c4, previous)
        for cell in (net.cell_12, net.cell_13, net.cell_14, net.cell_15):
            previous, x = x, cell(x, previous)
        return c2, c3, c4, x


class PNASNet5LargeEncoder(Encoder):
    """PNASNet-5-Large without its classifier; pretrainedmodels' names after `net.`.

    The first convolution does not pad: it turns an even side n into n / 2 - 1, which the first
    cell turns into n / 4, so the strides are exact as the network stands.
    """

    out_channels = (270, 1080, 2160, 4320)
    net: PNASNet5Large

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.net = PNASNet5Large()
        del self.net.avg_pool, self.net.dropout, self.net.last_linear

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute C2 to C5, the last cell of each stride; shapes as in `Encoder`."""
        net = self.net
        conv_0 = net.conv_0(images)  # stride 2
        c2 = net.cell_stem_0(conv_0)
        previous, x = c2, net.cell_stem_1(conv_0, c2)  # stride 8
        for cell in (net.cell_0, net.cell_1, net.cell_2, net.cell_3):
            previous, x = x, cell(previous, x)
        c3 = x
        for cell in (net.cell_4, net.cell_5, net.cell_6, net.cell_7):  # cell_4 halves the side
            previous, x = x, cell(previous, x)
        c4 = x
        for cell in (net.cell_8, net.cell_9, net.cell_10, net.cell_11):  # cell_8 halves it
            previous, x = x, cell(previous, x)
        return c2, c3, c4, x
