"""The table of encoders, and the one function that builds them.

A family's module holds its networks and knows where their pretrained weights are published. It is
imported when one of its encoders is asked for, because pretrainedmodels and timm take seconds.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from src.system.errors import InputError
from src.system.records import MAX_SHOWN, show_value

if TYPE_CHECKING:  # experiments are checked against the table before PyTorch is imported
    from src.retinanet.encoders.encoder import Encoder
    from src.retinanet.encoders.weight_sources import WeightSource
    from src.retinanet.settings import Normalisation

# The module of each encoder's family, in this folder.
ENCODERS = {
    "resnet18": "resnet",
    "resnet34": "resnet",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "resnet152": "resnet",
    "se_resnext50": "senet",
    "se_resnext101": "senet",
    "xception": "xception",
    "inceptionresnetv2": "inception_resnet_v2",
    "nasnet_mobile": "nasnet",
    "pnasnet5large": "nasnet",
    "dpn92": "dpn",
}
TIMM_PREFIX = "timm/"
TIMM_FAMILY = "timm_encoder"


class Family(Protocol):
    """What the module of a family holds."""

    def build(self, name: str, img_size: int | None) -> Encoder:
        """Build an encoder with random weights; see `build_encoder`."""

    def weight_sources(self, name: str) -> tuple[WeightSource, ...]:
        """Return the places that publish an encoder's weights, in the order to try them."""

    def normalisation(self, name: str) -> Normalisation:
        """Return what these weights were trained with."""


def build_encoder(name: str, *, img_size: int | None = None, in_channels: int = 3) -> Encoder:
    """Build an encoder by its name, with random weights.

    Args:
        name: a key of `ENCODERS`, or `timm/<model>`.
        img_size: side of the input in pixels, with which models of timm are tried, and for which
            those are built that take one size alone; ours take any multiple of 32 and ignore it.
        in_channels: 3, or 1 for grey as it is.

    Returns:
        The encoder, in training mode as PyTorch builds it.

    Raises:
        InputError: no such encoder, or timm's model cannot give the four maps.
    """
    encoder = family_of(name).build(name, img_size)
    if in_channels == 1:
        encoder.use_one_channel()
    return encoder


def family_of(name: str) -> Family:
    """Import the module of an encoder's family.

    Raises:
        InputError: no such encoder.
    """
    check_encoder_name(name)
    module = ENCODERS.get(name, TIMM_FAMILY)
    return cast("Family", import_module(f"{__name__}.{module}"))


def check_encoder_name(name: str) -> None:
    """Make sure that there is such an encoder; timm's own names are checked when one is built.

    Raises:
        InputError: there is none; near names are given.
    """
    if name not in ENCODERS and not name.startswith(TIMM_PREFIX):
        near = get_close_matches(name[:MAX_SHOWN], ENCODERS, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(
            f"unknown encoder {show_value(name)}; {hint}one of {', '.join(ENCODERS)}, or "
            f"timm/<model>"
        )
