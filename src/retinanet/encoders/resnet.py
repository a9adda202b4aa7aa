"""ResNet encoders (He et al. 2016, arXiv:1512.03385) on torchvision's networks."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from src.retinanet.encoders.encoder import Encoder
from src.retinanet.encoders.weight_sources import HubFile, WebFile, WeightSource
from src.retinanet.settings import IMAGENET, Normalisation

# Residual blocks and their number in layer1 to layer4; table 1 of the paper.
LAYOUTS: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
}
TORCHVISION = "https://download.pytorch.org/models"
HASHES = {  # the first digits of each file's SHA-256, which end its name
    "resnet18": "f37072fd",
    "resnet34": "b627a593",
    "resnet50": "0676ba61",
    "resnet101": "63fe2227",
    "resnet152": "394f9c45",
}


def build(name: str, img_size: int | None) -> Encoder:
    return ResNetEncoder(name)


def weight_sources(name: str) -> tuple[WeightSource, ...]:
    """Return the places of torchvision's first weights (IMAGENET1K_V1)."""
    return HubFile(f"timm/{name}.tv_in1k"), WebFile(f"{TORCHVISION}/{name}-{HASHES[name]}.pth")


def normalisation(name: str) -> Normalisation:
    return IMAGENET


class ResNetEncoder(Encoder):
    """The ResNet of torchvision without its pooling and classifier; same parameter names."""

    def __init__(self, name: str) -> None:
        """Build `name`, a key of `LAYOUTS`, with random weights."""
        super().__init__()
        block, n_blocks = LAYOUTS[name]
        net = ResNet(block, n_blocks)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1: nn.Sequential = net.layer1
        self.layer2: nn.Sequential = net.layer2
        self.layer3: nn.Sequential = net.layer3
        self.layer4: nn.Sequential = net.layer4
        width = block.expansion
        self.out_channels = (64 * width, 128 * width, 256 * width, 512 * width)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute C2 to C5, the outputs of layer1 to layer4; shapes as in `Encoder`."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # stride 4
        c2 = self.layer1(stem)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        return c2, c3, c4, c5
