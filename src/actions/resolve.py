"""What the flags of train_runner leave open: epochs, networks, and how boxes are chosen."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from src.actions.flags import Flags, postprocess_flags
from src.experiments.experiment import Experiment
from src.experiments.experiment_file import as_trained
from src.experiments.runs import Run, check_owner
from src.experiments.table import get_experiment
from src.prediction.presets import Postprocess, choose_postprocess
from src.prediction.provenance import Member, NetworkSet
from src.scoring.sweep import Choice, choose_epoch
from src.system.errors import InputError


def choose_run(flags: Flags) -> Run:
    """Name the run of the flags; of several models the first one's.

    Raises:
        InputError: its folder belongs to another run.
    """
    run = Run(flags.model, flags.fold, flags.tag, flags.output_dir)
    check_owner(run)
    return run


def choose_experiment(flags: Flags) -> Experiment:
    """Look up the experiment of the run, with the settings that flags change."""
    return get_experiment(flags.model, **find_changes(flags))


def find_changes(flags: Flags) -> dict[str, object]:
    """Return the settings of the experiment that flags change."""
    changes = {
        "fit": flags.fit,
        "batch_size": flags.batch_size,
        "accumulate": flags.accumulate,
        "learning_rate": flags.learning_rate,
        "n_epochs": flags.num_epochs,
    }
    return {name: value for name, value in changes.items() if value is not None}


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


def epochs_to_use(run: Run, flags: Flags) -> list[int]:
    """Take the epochs that the flags name, else the best one by check_metric, else the last.

    Raises:
        InputError: no checkpoints are there.
    """
    source = run.at(flags.weights_dir)
    saved = source.epochs_with_checkpoint()
    epochs = choose_epochs(flags, saved, source)
    if epochs is not None:
        return epochs
    if not saved:
        raise InputError(f"{source.dir}: holds no checkpoints; --action train makes them")
    return [choose_epoch(scores_path(run, flags.weights_dir), saved).epoch]


def scores_path(run: Run, weights_dir: Path | None) -> Path:
    """Return where check_metric's scores of the weights that are taken lie, if anywhere.

    The scores of this run are those of weights from elsewhere only if it has none of its own.
    """
    source = run.at(weights_dir)
    if source.scores_path.exists() or run.epochs_with_checkpoint():
        return source.scores_path
    return run.scores_path


def settle_networks(flags: Flags) -> list[NetworkSet]:
    """Collect the networks that predict: one ensemble, or each epoch of a run by itself.

    Raises:
        InputError: the networks do not fit each other.
    """
    run, experiment = choose_run(flags), choose_experiment(flags)
    if flags.asks_for_ensemble:
        members = tuple(_members_of_ensemble(run, experiment, flags))
        return [NetworkSet(members=members, hflip=flags.tta == "hflip")]
    experiment = as_trained(run.at(flags.weights_dir), experiment)
    return [
        NetworkSet(members=(Member(run=run, experiment=experiment, epoch=epoch),))
        for epoch in epochs_to_use(run, flags)
    ]


def _members_of_ensemble(run: Run, experiment: Experiment, flags: Flags) -> Iterator[Member]:
    """Yield models x folds x epochs.

    A run's weight is shared out among its epochs; a run of weight 0 is left out.
    """
    experiments = {run.model: experiment}
    for name in flags.models[1:]:
        experiments[name] = get_experiment(name, batch_size=flags.batch_size)
    folds = flags.folds or [run.fold]
    runs = [replace(run, model=name, fold=fold) for name in flags.models for fold in folds]
    weights = flags.run_weights or [None] * len(runs)
    for each, weight in zip(runs, weights, strict=True):
        check_owner(each)
        epochs = epochs_to_use(each, flags) if weight != 0 else []
        own_weight = 1.0 if weight is None else weight / max(1, len(epochs))
        trained = as_trained(each.at(flags.weights_dir), experiments[each.model])
        for epoch in epochs:
            yield Member(run=each, experiment=trained, epoch=epoch, weight=own_weight)


def settle_postprocess(flags: Flags, networks: NetworkSet | None = None) -> Postprocess:
    """Choose how boxes are chosen: by the flags, the preset, and check_metric's threshold.

    Raises:
        InputError: flags say how to combine networks, and there is only one.

    Args:
        networks: those that predict; None where the threshold does not matter. An ensemble takes
            the mean of its networks' thresholds by check_metric, unless a preset that is named
            sets one.
    """
    combines = networks is not None and networks.combines
    for flag, value in (("--combine", flags.combine), ("--k", flags.k)):
        if value is not None and not combines:
            raise InputError(f"{flag} needs an ensemble: several networks, or --tta")
    postprocess = choose_postprocess(flags.postprocess, postprocess_flags(flags), combines=combines)
    is_open = postprocess.threshold_is_open or (
        flags.postprocess is None and postprocess.threshold_from == "preset"
    )
    if networks is None or not is_open:
        return postprocess
    choices = [
        choose_epoch(scores_path(member.run, flags.weights_dir), [member.epoch], member.epoch)
        for member in networks.members
    ]
    if not combines:
        return choices[0].fill(postprocess)
    return _fill_ensemble(postprocess, choices, [member.weight for member in networks.members])


def _fill_ensemble(
    postprocess: Postprocess, choices: Sequence[Choice], weights: Sequence[float]
) -> Postprocess:
    """Take the mean of the best thresholds of an ensemble's networks, if all are known."""
    bests = [choice.best for choice in choices]
    thresholds = [
        best.threshold for best in bests if best is not None and best.gate == postprocess.gate
    ]
    if len(thresholds) < len(choices):
        return postprocess
    total = sum(map(operator.mul, thresholds, weights))
    return replace(
        postprocess,
        threshold=round(total / sum(weights), 4),
        threshold_from="check_metric, mean of the networks",
    )
