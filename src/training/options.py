"""How a training is run, beside what its experiment fixes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.retinanet.acceleration import Acceleration
from src.system.distributed import ALONE, Processes


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train, beside the experiment's own settings.

    Attributes:
        acceleration: where and how the network runs.
        processes: that train together.
        seed: of order, augmentation, first weights and dropout.
        n_workers: processes that prepare images; None chooses.
        resume: go on where the run stopped, if it did.
        from_epoch: the first epoch; the weights of the one before must be there.
        weights_path: start from this checkpoint's weights.
        encoder_weights: start the encoder from this file.
        checkpoint_minutes: the longest time between two states that a run can go on from.
        skips_non_finite: leave out steps whose loss or gradient is not finite, and count them.
        data_fingerprint: that labels and images must have; None asks nothing.
    """

    acceleration: Acceleration
    processes: Processes = ALONE
    seed: int
    n_workers: int | None = None
    resume: bool = False
    from_epoch: int = 0
    weights_path: Path | None = None
    encoder_weights: Path | None = None
    checkpoint_minutes: float = 10.0
    skips_non_finite: bool = False
    data_fingerprint: str | None = None
