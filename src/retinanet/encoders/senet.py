"""SE-ResNeXt encoders (Hu et al. 2018, arXiv:1709.01507) on pretrainedmodels' networks."""

from pretrainedmodels.models.senet import SENet, SEResNeXtBottleneck
from torch import Tensor, nn

from src.retinanet.encoders.encoder import Encoder
from src.retinanet.encoders.weight_sources import HubFile, WeightSource, old_server, timm_release
from src.retinanet.settings import IMAGENET, Normalisation

# Blocks in layer1 to layer4; table 1 of the paper.
LAYOUTS: dict[str, list[int]] = {
    "se_resnext50": [3, 4, 6, 3],
    "se_resnext101": [3, 4, 23, 3],
}


WEIGHT_SOURCES: dict[str, tuple[WeightSource, ...]] = {
    "se_resnext50": (
        HubFile("timm/legacy_seresnext50_32x4d.in1k"),
        timm_release("v0.1-weights/legacy_se_resnext50_32x4d-f3651bad.pth"),
        old_server("se_resnext50_32x4d-a260b3a4.pth"),
    ),
    "se_resnext101": (
        HubFile("timm/legacy_seresnext101_32x4d.in1k"),
        timm_release("v0.1-weights/legacy_se_resnext101_32x4d-37725eac.pth"),
        old_server("se_resnext101_32x4d-3b2fe3d8.pth"),
    ),
}


def build(name: str, img_size: int | None) -> Encoder:
    return SEResNeXtEncoder(name)


def weight_sources(name: str) -> tuple[WeightSource, ...]:
    return WEIGHT_SOURCES[name]


def normalisation(name: str) -> Normalisation:
    return IMAGENET


class SEResNeXtEncoder(Encoder):
    """SE-ResNeXt (32x4d) without its pooling and classifier; pretrainedmodels' parameter names."""

    def __init__(self, name: str) -> None:
        """Build `name`, a key of `LAYOUTS`, with random weights."""
        super().__init__()
        net = SENet(
            SEResNeXtBottleneck,
            LAYOUTS[name],
            groups=32,
            reduction=16,
            dropout_p=None,
            inplanes=64,
            input_3x3=False,
            downsample_kernel_size=1,
            downsample_padding=0,
        )
        self.layer0: nn.Sequential = net.layer0
        self.layer1: nn.Sequential = net.layer1
        self.layer2: nn.Sequential = net.layer2
        self.layer3: nn.Sequential = net.layer3
        self.layer4: nn.Sequential = net.layer4
        self.out_channels = (256, 512, 1024, 2048)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute C2 to C5, the outputs of layer1 to layer4; shapes as in `Encoder`."""
        c2 = self.layer1(self.layer0(images))  # layer0: convolution and max pool, stride 4
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        return c2, c3, c4, c5
