"""The table of encoders, and the one function that builds them.

A family's module is imported when one of its encoders is built, so that neither pretrainedmodels
nor timm is needed, or waited for, before that.
"""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from src.retinanet.encoders.encoder import Encoder
from src.system.errors import InputError

TIMM_PREFIX = "timm/"


def _resnet(name: str) -> Encoder:
    from src.retinanet.encoders.resnet import ResNetEncoder

    return ResNetEncoder(name)


def _se_resnext(name: str) -> Encoder:
    from src.retinanet.encoders.senet import SEResNeXtEncoder

    return SEResNeXtEncoder(name)


def _xception() -> Encoder:
    from src.retinanet.encoders.xception import XceptionEncoder

    return XceptionEncoder()


def _inception_resnet_v2() -> Encoder:
    from src.retinanet.encoders.inception_resnet_v2 import InceptionResNetV2Encoder

    return InceptionResNetV2Encoder()


def _nasnet_mobile() -> Encoder:
    from src.retinanet.encoders.nasnet import NASNetMobileEncoder

    return NASNetMobileEncoder()


def _pnasnet5large() -> Encoder:
    from src.retinanet.encoders.nasnet import PNASNet5LargeEncoder

    return PNASNet5LargeEncoder()


def _dpn92() -> Encoder:
    from src.retinanet.encoders.dpn import DPN92Encoder

    return DPN92Encoder()


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "resnet18": partial(_resnet, "resnet18"),
    "resnet34": partial(_resnet, "resnet34"),
    "resnet50": partial(_resnet, "resnet50"),
    "resnet101": partial(_resnet, "resnet101"),
    "resnet152": partial(_resnet, "resnet152"),
    "se_resnext50": partial(_se_resnext, "se_resnext50"),
    "se_resnext101": partial(_se_resnext, "se_resnext101"),
    "xception": _xception,
    "inceptionresnetv2": _inception_resnet_v2,
    "nasnet_mobile": _nasnet_mobile,
    "pnasnet5large": _pnasnet5large,
    "dpn92": _dpn92,
}


def build_encoder(
    name: str, *, weights: Path | None = None, img_size: int | None = None
) -> Encoder:
    """Build an encoder by its name.

    Args:
        name: a key of `ENCODERS`, or `timm/<model>`.
        weights: a file of pretrained weights (see `weights.find_weights`); None leaves them random.
        img_size: side of the input in pixels, for those models of timm that are built for one
            size; the others take any multiple of 32 and ignore it.

    Returns:
        The encoder, in training mode as PyTorch builds it.

    Raises:
        InputError: no such encoder, or timm's model cannot give the four maps.
        WeightsError: the file does not hold this encoder's weights.
    """
    if name.startswith(TIMM_PREFIX):
        from src.retinanet.encoders.timm_encoder import TimmEncoder

        encoder: Encoder = TimmEncoder(name.removeprefix(TIMM_PREFIX), img_size=img_size)
    elif name in ENCODERS:
        encoder = ENCODERS[name]()
    else:
        near = get_close_matches(name, ENCODERS, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(
            f"unknown encoder {name!r}; {hint}one of {', '.join(ENCODERS)}, or timm/<model>"
        )
    if weights is not None:
        from src.retinanet.encoders.weights import load_encoder_weights

        load_encoder_weights(encoder, name, weights)
    return encoder
