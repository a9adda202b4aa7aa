"""The Xception encoder (Chollet 2017, arXiv:1610.02357) on pretrainedmodels' network, aligned."""

from pretrainedmodels.models.xception import Xception
from torch import Tensor

from src.retinanet.encoders.encoder import Encoder
from src.retinanet.encoders.weight_sources import HubFile, WeightSource, old_server, timm_release
from src.retinanet.settings import INCEPTION, Normalisation


def build(name: str, img_size: int | None) -> Encoder:
    return XceptionEncoder()


def weight_sources(name: str) -> tuple[WeightSource, ...]:
    return (
        HubFile("timm/legacy_xception.tf_in1k"),
        timm_release("v0.1-cadene/xception-43020ad28.pth"),
        old_server("xception-43020ad28.pth"),
    )


def normalisation(name: str) -> Normalisation:
    return INCEPTION


class XceptionEncoder(Encoder):
    """Xception without its classifier; pretrainedmodels' names after `net.`.

    Kept from the original: the two convolutions of the stem pad by 1, which Xception itself does
    not, so that every stride is exact ("aligned Xception"); C5 is taken before its last ReLU.
    """

    out_channels = (128, 256, 728, 2048)
    net: Xception

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.net = Xception()
        self.net.conv1.padding = (1, 1)
        self.net.conv2.padding = (1, 1)
        del self.net.fc

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute C2 to C5, the ends of blocks 1, 2 and 11 and of bn4; shapes as in `Encoder`."""
        net = self.net
        stem = net.relu(net.bn1(net.conv1(images)))  # stride 2
        c2 = net.block1(net.relu(net.bn2(net.conv2(stem))))
        c3 = net.block2(c2)
        x = net.block3(c3)  # stride 16
        x = net.block7(net.block6(net.block5(net.block4(x))))
        c4 = net.block11(net.block10(net.block9(net.block8(x))))
        x = net.relu(net.bn3(net.conv3(net.block12(c4))))  # stride 32
        c5 = net.bn4(net.conv4(x))
        return c2, c3, c4, c5
