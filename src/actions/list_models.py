"""List the experiments; no action, but a flag of train_runner."""

from __future__ import annotations

from collections.abc import Iterator

from src.experiments.networks import count_parameters
from src.experiments.table import EXPERIMENTS, Experiment

ROW = "{:42} {:30} {:>5} {:>5} {:>5} {:>9} {:>10}  {}"


def list_models() -> None:
    """Print the experiments with their effective settings."""
    print(ROW.format("model", "encoder", "input", "batch", "augm.", "dropout", "parameters", ""))
    for name, experiment in EXPERIMENTS.items():
        row = ROW.format(
            name,
            experiment.encoder,
            experiment.img_size,
            experiment.batch_size,
            experiment.augmentation_level,
            f"{experiment.dropout_class:g}, {experiment.dropout_global:g}",
            f"{count_parameters(experiment):,}",
            "; ".join(_notes(experiment)),
        )
        print(row, flush=True)


def _notes(experiment: Experiment) -> Iterator[str]:
    """Say what sets an experiment apart from most."""
    if not experiment.pretrained:
        yield f"from scratch, batch norm {'trained' if experiment.trains_batch_norm else 'frozen'}"
    if experiment.optimizer != "adam":
        yield experiment.optimizer
    if experiment.normalisation != "none":
        yield "input normalised"
    if experiment.ema_decay:
        yield "average of weights"
    if experiment.box_points != "thirds":
        yield f"boxes by {experiment.box_points}"
    yield f"P{experiment.pyramid_levels[0]} to P{experiment.pyramid_levels[-1]}"
