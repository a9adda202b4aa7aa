"""EVA-X's architectures, registered with timm: its EVA-02 with patches of 16 pixels at 224 pixels.

timm's own EVA-02 of these sizes has patches of 14 pixels, and its rotary positions belong to a grid
of 16 x 16; EVA-X was trained on 14 x 14 (https://github.com/hustvl/EVA-X, eva_x.py).
"""

from __future__ import annotations

from typing import Any

import timm
from timm.models import generate_default_cfgs, register_model
from torch import nn

MEAN, DEVIATION = 0.49185243, 0.28509309  # classification/utils/datasets.py there
GRID = (14, 14)  # patches of a training image


def _settings() -> dict[str, Any]:
    """Return what timm keeps of a network; its weights are in the table of named weights."""
    return {
        "num_classes": 0,
        "input_size": (3, 224, 224),
        "fixed_input_size": True,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "mean": (MEAN,) * 3,
        "std": (DEVIATION,) * 3,
    }


default_cfgs = generate_default_cfgs(
    {f"eva_x_{size}_patch16_224": _settings() for size in ("tiny", "small", "base")}
)


def _eva_02(size: str, pretrained: bool, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's
    """Build timm's EVA-02 of the same size with EVA-X's patches and positions."""
    entry = timm.models.model_entrypoint(f"eva02_{size}_patch14_224")
    return entry(
        pretrained=pretrained,
        **{"patch_size": 16, "ref_feat_shape": GRID, "num_classes": 0, **options},
    )


@register_model
def eva_x_tiny_patch16_224(pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: ANN401
    return _eva_02("tiny", pretrained, **options)


@register_model
def eva_x_small_patch16_224(pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: ANN401
    return _eva_02("small", pretrained, **options)


@register_model
def eva_x_base_patch16_224(pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: ANN401
    return _eva_02("base", pretrained, **options)
