"""How a training is run, beside what its experiment fixes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.datasets.data_folder import ImageSource
from src.prediction.predictions import Predictions
from src.retinanet.acceleration import Acceleration
from src.retinanet.settings import DEFAULT_WEAK, WeakLimits
from src.system.distributed import ALONE, Processes
from src.system.processes import StopRequest


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a training is run, beside its experiment's settings.

    Attributes:
        acceleration: where and how the network runs.
        processes: rank and number of the processes that share each batch.
        seed: of order, augmentation, first weights and dropout.
        n_workers: processes that prepare images; None chooses.
        resume: continue where the run stopped, if it did.
        from_epoch: the first epoch; a later one than 0 needs `weights_path`.
        weights_path: start from this checkpoint's weights.
        init_weights: begin a fresh training with the weights of this checkpoint, of whatever run.
        init_sha256: that this file must have; None takes any.
        encoder_weights: start the encoder from this file; None starts it at random, and suits a
            training whose weights come from a checkpoint.
        encoder_sha256: that this file must have; None takes any.
        checkpoint_minutes: the longest time between two states that a run can be resumed from.
        skips_non_finite: leave out steps whose loss or gradient is not finite, and count them.
        weak: which boxes are saved beside the candidates of validation.
        data_fingerprint: that labels and images must have; None takes any.
        split_fingerprint: of which images are trained on and held out; None takes any.
        patience: end after so many epochs without a new least regression loss of validation;
            None trains all epochs.
        stop: tells the training to save its state and stop; several trainings may share it.
        draw_epoch: makes a picture of an epoch's validation, (H, W, 3) uint8, RGB, for TensorBoard.
    """

    acceleration: Acceleration
    processes: Processes = ALONE
    seed: int
    n_workers: int | None = None
    resume: bool = False
    from_epoch: int = 0
    weights_path: Path | None = None
    init_weights: Path | None = None
    init_sha256: str | None = None
    encoder_weights: Path | None = None
    encoder_sha256: str | None = None
    checkpoint_minutes: float = 10.0
    skips_non_finite: bool = False
    weak: WeakLimits = DEFAULT_WEAK
    data_fingerprint: str | None = None
    split_fingerprint: str | None = None
    patience: int | None = None
    stop: StopRequest = field(default_factory=StopRequest)
    draw_epoch: Callable[[ImageSource, Predictions], NDArray[np.uint8]] | None = None
