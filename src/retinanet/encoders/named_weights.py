"""Pretrained weights that an experiment chooses by name: of chest radiographs, not of ImageNet.

Can be imported without PyTorch: experiments are checked against the table. What each entry says is
what its publishers say; that weights can be loaded does not say that they serve better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from src.retinanet.encoders.weight_sources import HubFile, WeightSource
from src.retinanet.settings import Normalisation

SEEN_RSNA = "has seen RSNA images"
XRV_PAGE = "https://github.com/mlmed/torchxrayvision"
EVA_X_REVISION = "35ddcd6dab6ca99bbdb6cb45c8d1b093aefbd0ee"
NIH = "NIH ChestX-ray14"  # where RSNA's images come from

Layout = Literal["encoder", "densenet", "dinov2", "eva", "ark"]


@dataclass(frozen=True, kw_only=True)
class NamedWeights:
    """Weights that somebody published, and what is known of them.

    Attributes:
        encoder: which they fit.
        page: where they are described.
        licence: of the weights.
        trained_on: the images.
        seen_rsna: whether RSNA's images were among them, with or without labels.
        normalisation: of the input that they were trained with.
        in_channels: that they take.
        sources: where they can be downloaded.
        by_hand: how else to get a file of them.
        layout: how the file names its tensors; a key of `renamed_weights.LAYOUTS`.
    """

    encoder: str
    page: str
    licence: str
    trained_on: str
    seen_rsna: bool
    normalisation: Normalisation
    in_channels: Literal[3, 1] = 3
    sources: tuple[WeightSource, ...] = ()
    by_hand: str = ""
    layout: Layout = "encoder"

    def describe(self) -> str:
        """Say what they were trained on, and whether RSNA's images were among it."""
        seen = f"; {SEEN_RSNA}" if self.seen_rsna else ""
        return f"{self.trained_on}; licence {self.licence}{seen}"


# Grey from 0 to 1 becomes -1024 to 1024.
XRV_INPUT = Normalisation(mean=(0.5,), deviation=(1 / 2048,))


def _xrv_densenet(variant: str, trained_on: str, *, seen_rsna: bool) -> NamedWeights:
    """Describe a DenseNet of torchxrayvision, whose files hold code beside the weights."""
    name = f"densenet121-res224-{variant}"
    return NamedWeights(
        encoder="timm/densenet121",
        page=XRV_PAGE,
        licence="Apache 2.0",
        trained_on=trained_on,
        seen_rsna=seen_rsna,
        normalisation=XRV_INPUT,
        in_channels=1,
        by_hand="its published file is a whole model, which is not loaded because it can run code; "
        f"where torchxrayvision is installed, torch.save(torchxrayvision.models.DenseNet(weights="
        f"'{name}').state_dict(), FILE) writes one that is",
        layout="densenet",
    )


def _eva_x(size: str) -> NamedWeights:
    return NamedWeights(
        encoder=f"timm/eva_x_{size}_patch16_224",
        page="https://github.com/hustvl/EVA-X",
        licence="MIT",
        trained_on=f"{NIH}, CheXpert and MIMIC-CXR, without labels and without their test images",
        seen_rsna=True,
        normalisation=Normalisation(mean=(0.49185243,), deviation=(0.28509309,)),
        sources=(
            HubFile("MapleF/eva_x", f"eva_x_{size}_patch16_merged520k_mim.pt", EVA_X_REVISION),
        ),
        layout="eva",
    )


NAMED_WEIGHTS = {
    "xrv_densenet121_all": _xrv_densenet(
        "all",
        f"{NIH}, PadChest, CheXpert, MIMIC-CXR, Google's labels of NIH, OpenI and RSNA",
        seen_rsna=True,
    ),
    "xrv_densenet121_chex": _xrv_densenet("chex", "CheXpert", seen_rsna=False),
    "xrv_densenet121_mimic": _xrv_densenet("mimic_ch", "MIMIC-CXR", seen_rsna=False),
    "xrv_densenet121_pc": _xrv_densenet("pc", "PadChest", seen_rsna=False),
    "xrv_resnet50_all": NamedWeights(
        encoder="resnet50",
        page=XRV_PAGE,
        licence="Apache 2.0",
        trained_on=f"PadChest, {NIH}, RSNA, SIIM and VinDr-CXR, at 512 pixels",
        seen_rsna=True,
        normalisation=XRV_INPUT,
        in_channels=1,
        by_hand=f"{XRV_PAGE}/releases/download/v1/pc-nih-rsna-siim-vin-resnet50-test512-e400-"
        "state.pt is a file of tensors alone; no hash of it is published",
    ),
    "rad_dino": NamedWeights(
        encoder="timm/vit_base_patch14_dinov2",
        page="https://huggingface.co/microsoft/rad-dino",
        licence="MIT",
        trained_on=f"{NIH}, BRAX, CheXpert, MIMIC-CXR and PadChest, without labels, at 518 pixels",
        seen_rsna=True,
        normalisation=Normalisation(mean=(0.5307,), deviation=(0.2583,)),
        sources=(
            HubFile(
                "microsoft/rad-dino",
                "model.safetensors",
                "c3736a62544137a0450cc4fa02c9e37e55f28e32",
            ),
        ),
        layout="dinov2",
    ),
    "eva_x_tiny": _eva_x("tiny"),
    "eva_x_small": _eva_x("small"),
    "eva_x_base": _eva_x("base"),
    "ark_plus": NamedWeights(
        encoder="timm/swin_large_patch4_window12_384",
        page="https://github.com/jlianglab/Ark",
        licence="ASU GitHub Project License",
        trained_on=f"MIMIC-CXR, CheXpert, {NIH}, RSNA, VinDr-CXR and Shenzhen, at 768 pixels",
        seen_rsna=True,
        normalisation=Normalisation(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225)),
        by_hand="its authors send Ark6_swinLarge768_ep50.pth.tar to those who ask by the form "
        "that its page names",
        layout="ark",
    ),
}
