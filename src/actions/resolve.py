"""What the flags of train_runner leave open: epochs, networks, and how boxes are chosen."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from src.actions.flags import postprocess_flags
from src.experiments.experiment import Experiment
from src.experiments.experiment_file import as_trained
from src.experiments.runs import Run, check_owner
from src.experiments.table import get_experiment
from src.prediction.presets import Postprocess, choose_postprocess
from src.prediction.provenance import Member, check_members
from src.scoring.sweep import load_sweep, saved_threshold
from src.system.errors import InputError

if TYPE_CHECKING:  # check_metric does not wait for PyTorch
    from src.retinanet.acceleration import Acceleration


def asks_for_ensemble(arguments: argparse.Namespace) -> bool:
    """Say whether the flags combine networks, or the views of one."""
    several = arguments.folds or arguments.run_weights or len(arguments.models) > 1
    return bool(several or arguments.tta)


def choose_epochs(arguments: argparse.Namespace, saved: list[int], run: Run) -> list[int] | None:
    """Return the epochs that the flags name, each once, None where they name none."""
    if arguments.epoch is not None:
        return list(dict.fromkeys(arguments.epoch))
    if not arguments.from_epoch and arguments.num_epochs is None:
        return None
    stop = arguments.num_epochs or max(saved, default=0) + 1
    epochs = [epoch for epoch in saved if arguments.from_epoch <= epoch < stop]
    if not epochs:
        raise InputError(f"{run.dir}: has no epoch from {arguments.from_epoch} to {stop - 1}")
    return epochs


def epochs_to_use(run: Run, arguments: argparse.Namespace) -> list[int]:
    """Take the epochs that the flags name, else the best one by check_metric, else the last."""
    source = run.at(arguments.weights_dir)
    epochs = choose_epochs(arguments, source.epochs_with_checkpoint(), source)
    return [default_epoch(run, arguments.weights_dir)] if epochs is None else epochs


def default_epoch(run: Run, weights_dir: Path | None = None) -> int:
    """Choose the best epoch by check_metric or, where none has a score, the last one saved.

    Raises:
        InputError: no checkpoints are there.
    """
    path = scores_path(run, weights_dir)
    if path.exists():
        best = load_sweep(path).best()
        if best["score"] > 0:
            return int(best["epoch"])
    source = run.at(weights_dir)
    saved = source.epochs_with_checkpoint()
    if not saved:
        raise InputError(f"{source.dir}: holds no checkpoints; --action train makes them")
    return saved[-1]


def scores_path(run: Run, weights_dir: Path | None) -> Path:
    """Return where check_metric's scores of the weights that are taken lie, if anywhere.

    The scores of this run are those of weights from elsewhere only if it has none of its own.
    """
    source = run.at(weights_dir)
    if source.scores_path.exists() or run.epochs_with_checkpoint():
        return source.scores_path
    return run.scores_path


def choose_members(run: Run, experiment: Experiment, arguments: argparse.Namespace) -> list[Member]:
    """Collect the networks of an ensemble: models x folds x epochs.

    A run's weight is shared out among its epochs; a run of weight 0 is left out.

    Args:
        run, experiment: of the first model.

    Raises:
        InputError: the weights do not fit the runs, or the networks do not fit each other.
    """
    experiments = {run.model: experiment}
    for name in arguments.models[1:]:
        experiments[name] = get_experiment(name, batch_size=arguments.batch_size)
    folds = arguments.folds or [run.fold]
    runs = [replace(run, model=name, fold=fold) for name in arguments.models for fold in folds]
    members: list[Member] = []
    for each, weight in zip(runs, _weigh_runs(arguments.run_weights, runs), strict=True):
        check_owner(each)
        epochs = epochs_to_use(each, arguments) if weight != 0 else []
        share = 1.0 if weight is None else weight / max(1, len(epochs))
        its_experiment = as_trained(each.at(arguments.weights_dir), experiments[each.model])
        members += [
            Member(run=each, experiment=its_experiment, epoch=epoch, weight=share)
            for epoch in epochs
        ]
    check_members(members)
    return members


def settle_postprocess(
    arguments: argparse.Namespace, members: Sequence[Member] | None = None
) -> Postprocess:
    """Choose how boxes are chosen: by the flags, the preset, and check_metric's threshold.

    Args:
        members: the networks that predict; None where the threshold does not matter. What
            check_metric found is of one network alone and so serves no ensemble.
    """
    combines = members is not None and (len(members) > 1 or bool(arguments.tta))
    if not combines:
        _refuse_sizes(arguments)
    postprocess = choose_postprocess(
        arguments.postprocess, postprocess_flags(arguments), combines=combines
    )
    if members is None or combines or not postprocess.threshold_is_open:
        return postprocess
    (member,) = members
    path = scores_path(member.run, arguments.weights_dir)
    best = saved_threshold(path, member.epoch, postprocess.gate)
    if best is None:
        return postprocess
    source = f"check_metric, epoch {member.epoch}"
    return replace(postprocess, threshold=best, threshold_from=source)


def choose_acceleration(arguments: argparse.Namespace) -> Acceleration:
    """Choose device and arithmetic by the flags; sets PyTorch's switches of the whole process.

    Raises:
        InputError: there is no such device, or it does not have the precision.
    """
    from src.retinanet.acceleration import (
        Acceleration,
        choose_device,
        choose_precision,
        set_global_switches,
    )

    device = choose_device(arguments.device)
    set_global_switches(deterministic=arguments.deterministic)
    return Acceleration(
        device=device,
        precision=choose_precision(arguments.precision, device),
        compiles=arguments.compile,
        recomputes_encoder=arguments.checkpoint_encoder,
    )


def _weigh_runs(weights: Sequence[float] | None, runs: Sequence[Run]) -> Sequence[float | None]:
    """Return a weight for each run; None where all networks weigh alike."""
    if weights is None:
        return [None] * len(runs)
    if len(weights) != len(runs):
        names = ", ".join(run.name for run in runs)
        raise InputError(
            f"--run-weights: {len(weights)} weights for {len(runs)} runs, which are {names}"
        )
    if not any(weights):
        raise InputError("--run-weights: one of them must be greater than 0")
    return weights


def _refuse_sizes(arguments: argparse.Namespace) -> None:
    for flag, value in (("--combine", arguments.combine), ("--k", arguments.k)):
        if value is not None:
            raise InputError(f"{flag} needs an ensemble: several networks, or --tta")
