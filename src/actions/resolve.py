"""What the flags of train_runner leave open: the run, epochs, and how boxes are chosen."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.actions.flags import Flags, postprocess_flags
from src.experiments.changes import read_changes, tag_of_changes
from src.experiments.experiment import Experiment
from src.experiments.runs import Run, check_owner
from src.experiments.table import get_experiment
from src.prediction.presets import Postprocess, choose_postprocess
from src.system.errors import InputError


def check_models(flags: Flags) -> None:
    """Make sure that every --model names an experiment, or a run that is there.

    Raises:
        InputError: one does not; near names are given.
    """
    for model in flags.models:
        run = Run(model, flags.fold, flags.tag, flags.weights_dir or flags.output_dir)
        if not any(run.output_dir.glob(f"{glob.escape(run.common_name)}_fold_*")):
            get_experiment(model)


def choose_run(flags: Flags) -> Run:
    """Name the run of the flags; of several models the first one's.

    Raises:
        InputError: its folder belongs to another run.
    """
    run = Run(flags.model, flags.fold, flags.tag, flags.output_dir)
    check_owner(run)
    return run


def name_changed(flags: Flags) -> Flags:
    """Name the run of a changed experiment after what --set changes, unless --run names it."""
    if flags.run or not flags.settings:
        return flags
    return replace(flags, run=tag_of_changes(read_changes(flags.settings)))


def find_changes(flags: Flags) -> dict[str, Any]:
    """Return the settings of an experiment that the flags of a training change.

    Raises:
        InputError: --set is wrong, or another flag sets the same.
    """
    changes = read_changes(flags.settings)
    for field, flag, value in (
        ("batch_size", "--batch-size", flags.batch_size),
        ("learning_rate", "--learning-rate", flags.learning_rate),
        ("n_epochs", "--num-epochs", flags.num_epochs),
    ):
        if value is not None and field in changes:
            raise InputError(f"{flag} cannot be combined with --set {field}: both set the same")
        if value is not None:
            changes[field] = value
    return changes


def change_experiment(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """Change settings of an experiment.

    Raises:
        InputError: a change is wrong.
    """
    try:
        return replace(experiment, **changes)
    except InputError as error:
        raise InputError(f"--set: {error}") from error


def choose_epochs(flags: Flags, saved: list[int], run: Run) -> list[int] | None:
    """Return the epochs that the flags name, each once, None where they name none."""
    if flags.epoch is not None:
        return list(dict.fromkeys(flags.epoch))
    if not flags.from_epoch and flags.num_epochs is None:
        return None
    stop = flags.num_epochs or max(saved, default=0) + 1
    epochs = [epoch for epoch in saved if flags.from_epoch <= epoch < stop]
    if not epochs:
        raise InputError(f"{run.dir}: has no epoch from {flags.from_epoch} to {stop - 1}")
    return epochs


def scores_path(run: Run, weights_dir: Path | None) -> Path:
    """Return where check_metric's scores of the weights that are taken lie, if anywhere.

    The scores of this run are those of weights from elsewhere only if it has none of its own.
    """
    source = run.at(weights_dir)
    if source.scores_path.exists() or run.epochs_with_checkpoint():
        return source.scores_path
    return run.scores_path


def settle_postprocess(flags: Flags, *, combines: bool = False) -> Postprocess:
    """Choose how boxes are chosen: by the flags and the preset; the threshold may stay open.

    Args:
        combines: whether the outputs of several networks are combined.

    Raises:
        InputError: flags say how to combine networks, and there is only one.
    """
    for flag, value in (("--combine", flags.combine), ("--k", flags.k)):
        if value is not None and not combines:
            raise InputError(f"{flag} needs an ensemble: several networks, or --tta")
    return choose_postprocess(flags.postprocess, postprocess_flags(flags), combines=combines)
