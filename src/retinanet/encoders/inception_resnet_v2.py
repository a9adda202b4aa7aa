"""The Inception-ResNet-v2 encoder (Szegedy et al. 2017, arXiv:1602.07261), aligned.

Built on pretrainedmodels' network.
"""

from pretrainedmodels.models.inceptionresnetv2 import InceptionResNetV2
from torch import Tensor, nn

from src.retinanet.encoders.encoder import Encoder
from src.retinanet.encoders.weight_sources import HubFile, WeightSource, old_server
from src.retinanet.settings import INCEPTION, Normalisation


def build(name: str, img_size: int | None) -> Encoder:
    return InceptionResNetV2Encoder()


def weight_sources(name: str) -> tuple[WeightSource, ...]:
    return (
        HubFile("timm/inception_resnet_v2.tf_in1k"),
        old_server("inceptionresnetv2-520b38e4.pth"),
    )


def normalisation(name: str) -> Normalisation:
    return INCEPTION


class InceptionResNetV2Encoder(Encoder):
    """Inception-ResNet-v2 without its classifier; pretrainedmodels' names after `net.`.

    Kept from the original: every layer pads by half its kernel, where the network itself leaves
    the borders out, so that every stride is exact.
    """

    out_channels = (192, 320, 1088, 1536)
    net: InceptionResNetV2

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.net = InceptionResNetV2()
        del self.net.avgpool_1a, self.net.last_linear
        for layer in self.net.modules():
            if isinstance(layer, nn.Conv2d):
                height, width = layer.kernel_size
                layer.padding = (height // 2, width // 2)
            elif isinstance(layer, nn.MaxPool2d):
                layer.padding = 1  # the kernel is 3 throughout

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute C2 to C5, the last maps before each reduction; shapes as in `Encoder`."""
        net = self.net
        stem = net.conv2d_2b(net.conv2d_2a(net.conv2d_1a(images)))  # stride 2
        c2 = net.conv2d_4a(net.conv2d_3b(net.maxpool_3a(stem)))
        c3 = net.repeat(net.mixed_5b(net.maxpool_5a(c2)))
        c4 = net.repeat_1(net.mixed_6a(c3))
        c5 = net.conv2d_7b(net.block8(net.repeat_2(net.mixed_7a(c4))))
        return c2, c3, c4, c5
