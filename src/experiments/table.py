"""The experiments: a name for each set of settings that a run is trained with.

All values are effective ones. Where the original release's table said one thing and its code did
another, docs/differences.md tells which was taken.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from src.system.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import and `--help` needs none of it
    pass


PAPER_LEVELS = (2, 3, 4, 5, 6, 7)
WITHOUT_P2 = (3, 4, 5, 6, 7)
TIMM_PREFIX = "timm/"
MUST_AGREE = ("img_size", "source_crop", "pyramid_levels")  # what shapes input and anchors


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that makes an experiment; the defaults are the paper's.

    Attributes:
        encoder: a name in `encoders.ENCODERS`, or `timm/<model>`.
        img_size: side of the network input, pixels; a multiple of 32, at least 192.
        source_crop: side of the central square of the file that is shown, its pixels; None
            shows the whole image.
        batch_size: images that go through the network together, on all GPUs.
        accumulate: batches to a training step, for a larger batch than memory holds.
        augmentation_level: a key of `augmentations.AUGMENTATION_LEVELS`.
        box_points: points of a box that are carried through a rotation.
        hflip: mirror every second training image.
        pretrained: start the encoder from ImageNet weights.
        batch_norm: "frozen" statistics are the paper's way; without pretrained weights they
            would be 0 and 1 and normalise nothing. "train" lets them follow the batches. "auto"
            trains batch norm exactly where the encoder is not pretrained.
        dropout_class: before the class head's output.
        dropout_global: before the global head's linear layer.
        pyramid_levels: consecutive levels from 2..5 to 5..7.
        pyramid_width: channels of pyramid and heads.
        head_depth: 3x3 convolutions in box and class head before the output.
        optimizer: "adam", or "sgd" with momentum .95 and the second place's rates for each part.
        learning_rate: of Adam; of SGD the rate of pyramid, class head and global head.
        scheduler: "plateau" follows the validation regression loss (patience 4, factor .2),
            "milestones" divides by 10 after epochs 8, 16 and 20, "one_cycle" rises to the
            learning rate and falls to nothing over the whole run.
        clip_norm: the gradient's largest norm.
        n_epochs: of a whole training.
    """

    encoder: str
    img_size: int = 512
    source_crop: int | None = None
    batch_size: int
    accumulate: int = 1
    augmentation_level: int = 10
    box_points: Literal["thirds", "corners"] = "thirds"
    hflip: bool = False
    pretrained: bool = True
    batch_norm: Literal["auto", "frozen", "train"] = "auto"
    dropout_class: float = 0.5
    dropout_global: float = 0.5
    pyramid_levels: tuple[int, ...] = PAPER_LEVELS
    pyramid_width: int = 256
    head_depth: int = 4
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-5
    scheduler: Literal["plateau", "milestones", "one_cycle"] = "plateau"
    clip_norm: float = 0.05
    n_epochs: int = 15

    @property
    def trains_batch_norm(self) -> bool:
        """Say whether batch norm follows the batches."""
        if self.batch_norm == "auto":
            return not self.pretrained
        return self.batch_norm == "train"


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


def _small_from_scratch(**changes: Any) -> Experiment:  # noqa: ANN401 - fields of Experiment
    """An experiment that a CPU trains in minutes, without pretrained weights."""
    settings: dict[str, Any] = {
        "encoder": "resnet18",
        "batch_size": 8,
        "pretrained": False,
        "pyramid_levels": WITHOUT_P2,
        "pyramid_width": 64,
        "learning_rate": 2e-3,
        "scheduler": "one_cycle",
        "clip_norm": 1.0,
    }
    return Experiment(**(settings | changes))


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

# What the field has moved to since, with the paper's training.
MODERN: dict[str, Experiment] = {
    "convnext_tiny_512": Experiment(
        encoder="timm/convnext_tiny", batch_size=8, augmentation_level=20
    ),
    "swinv2_tiny_512": Experiment(
        encoder="timm/swinv2_tiny_window8_256", batch_size=8, augmentation_level=20
    ),
    "timm_seresnext50_512": Experiment(
        encoder="timm/seresnext50_32x4d", batch_size=8, augmentation_level=20
    ),
    "efficientnet_b3_512": Experiment(
        encoder="timm/efficientnet_b3", batch_size=8, augmentation_level=20
    ),
}

# For machines without a GPU.
SMALL: dict[str, Experiment] = {
    "demo": _small_from_scratch(
        encoder="timm/regnetx_002",
        img_size=192,
        hflip=True,
        dropout_class=0.0,
        dropout_global=0.0,
        pyramid_width=48,
        head_depth=2,
        n_epochs=16,
    ),
    "resnet18_256_scratch": _small_from_scratch(img_size=256),
}

EXPERIMENTS: dict[str, Experiment] = ORIGINAL | SECOND_PLACE | MODERN | SMALL


def get_experiment(name: str, **changes: object) -> Experiment:
    """Look up an experiment.

    Args:
        name: in `EXPERIMENTS`, or `timm/<model>` for any encoder of timm with the paper's settings.
        changes: settings to override; None leaves one as it is.

    Raises:
        InputError: there is no such experiment; near names are given.
    """
    if name.startswith(TIMM_PREFIX):
        experiment = Experiment(encoder=name, batch_size=8, augmentation_level=20)
    elif name in EXPERIMENTS:
        experiment = EXPERIMENTS[name]
    else:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "--list-models names them"
        raise InputError(f"--model {name!r}: no such experiment; {hint}")
    given = {field: value for field, value in changes.items() if value is not None}
    return dataclasses.replace(experiment, **given)  # type: ignore[arg-type]
