"""The validation predictions that a run saved, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from src.experiments.runs import numbered_files
from src.prediction.predictions import (
    Predictions,
    PredictionsError,
    join_predictions,
    load_predictions,
)

LoadEpoch = Callable[[Sequence[Path], int], Predictions]  # `load_epoch`, or what changes its result


def load_epoch(run_dirs: Sequence[Path], epoch: int) -> Predictions:
    """Load the validation predictions of one epoch of one or several runs, as one.

    Raises:
        PredictionsError: a run does not have the epoch.
        PredictionsError: a file is broken, or of another run, or the runs cannot be pooled.
    """
    parts = []
    for run_dir in run_dirs:
        saved = saved_epochs(run_dir)
        if epoch not in saved:
            raise PredictionsError(
                f"{run_dir}: holds no predictions of epoch {epoch}; it has {saved}"
            )
        path = predictions_path(run_dir, epoch)
        predictions = load_predictions(path)
        if predictions.provenance.epoch not in (epoch, None):
            raise PredictionsError(f"{path}: is of epoch {predictions.provenance.epoch}")
        parts.append(predictions)
    return parts[0] if len(parts) == 1 else join_predictions(parts)


def predictions_path(run_dir: Path, epoch: int) -> Path:
    """Return where a run keeps the validation predictions of an epoch."""
    return run_dir / "predictions" / f"{epoch:03}.npz"


def saved_epochs(run_dir: Path) -> list[int]:
    """Return the epochs of a run whose predictions are saved.

    Raises:
        PredictionsError: there are none.
    """
    if not run_dir.is_dir():
        raise PredictionsError(f"{run_dir}: no such folder of a run")
    saved = numbered_files(run_dir / "predictions", ".npz")
    if not saved:
        raise PredictionsError(
            f"{run_dir / 'predictions'}: holds no predictions; --action train makes them"
        )
    return saved


def common_epochs(run_dirs: Sequence[Path]) -> list[int]:
    """Return the epochs that all runs have.

    Raises:
        PredictionsError: there are none.
    """
    epochs = [saved_epochs(run_dir) for run_dir in run_dirs]
    common = sorted(set(epochs[0]).intersection(*epochs[1:]))
    if not common:
        had = "; ".join(f"{d.name} has {e}" for d, e in zip(run_dirs, epochs, strict=True))
        raise PredictionsError(f"the runs have no epoch in common: {had}")
    return common
