"""Which networks predict: those of runs, as their files describe them, or files of weights."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from src.actions.flags import Flags
from src.actions.resolve import choose_epochs, choose_run, scores_path, settle_postprocess
from src.experiments.checkpoints import load_checkpoint
from src.experiments.experiment import Experiment
from src.experiments.networks import trained_experiment
from src.experiments.runs import Run, check_owner
from src.experiments.shared_weights import find_shared_weights
from src.prediction.presets import Postprocess
from src.prediction.provenance import Member, NetworkSet
from src.scoring.sweep import Choice, choose_epoch, read_best
from src.system.errors import InputError


def settle_networks(flags: Flags, *, downloads_dir: Path) -> list[NetworkSet]:
    """Collect the networks that predict: one ensemble, or each epoch of a run by itself.

    Args:
        downloads_dir: keeps weights that come from the hub.

    Raises:
        InputError: the networks are not there, or do not fit each other.
    """
    members = list(_find_members(flags, downloads_dir))
    if flags.asks_for_ensemble:
        return [NetworkSet(members=tuple(members), hflip=flags.tta == "hflip")]
    return [NetworkSet(members=(member,)) for member in members]


def _find_members(flags: Flags, downloads_dir: Path) -> Iterator[Member]:
    """Yield the networks of files of weights, else models x folds x epochs.

    A run's weight is shared out among its epochs; a run of weight 0 is left out.
    """
    if flags.weights:
        shares: Sequence[float] = flags.run_weights or [1.0] * len(flags.weights)
        for place, share in zip(flags.weights, shares, strict=True):
            yield _member_of_file(find_shared_weights(place, downloads_dir), flags, share)
        return
    first = choose_run(flags)
    folds = flags.folds or [first.fold]
    runs = [replace(first, model=name, fold=fold) for name in flags.models for fold in folds]
    for run, weight in zip(runs, flags.run_weights or [None] * len(runs), strict=True):
        check_owner(run)
        epochs = epochs_to_use(run, flags) if weight != 0 else []
        own_weight = 1.0 if weight is None else weight / max(1, len(epochs))
        for epoch in epochs:
            source = run.at(flags.weights_dir)
            yield Member(
                run=run,
                experiment=_with_batch_size(trained_experiment(source, epoch), flags),
                epoch=epoch,
                path=source.find_checkpoint(epoch) or source.checkpoint_path(epoch),
                weight=own_weight,
            )


def _member_of_file(path: Path, flags: Flags, weight: float) -> Member:
    """Take a network from a file of weights alone."""
    facts = load_checkpoint(path).facts
    if facts.training is not None or facts.epoch < 0:
        raise InputError(f"{path}: is the state of a training; take the weights of one of its "
                         f"epochs, which lie beside it")  # fmt: skip
    if facts.fold is None:
        raise InputError(f"{path}: an older version wrote it, which did not store the fold; "
                         f"--model and --fold predict by it where its run is")  # fmt: skip
    return Member(
        run=Run(facts.experiment, facts.fold, facts.tag, flags.output_dir),
        experiment=_with_batch_size(facts.settings, flags),
        epoch=facts.epoch,
        path=path,
        weight=weight,
    )


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


def settle_boxes(flags: Flags, networks: NetworkSet) -> Postprocess:
    """Choose how the boxes of networks are chosen: by the flags, the preset, and check_metric.

    An ensemble takes the mean of its networks' thresholds by check_metric, unless a preset that is
    named sets one.

    Raises:
        InputError: flags say how to combine networks, and there is only one.
    """
    postprocess = settle_postprocess(flags, combines=networks.combines)
    is_open = postprocess.threshold_is_open or (
        flags.postprocess is None and postprocess.threshold_from == "preset"
    )
    if not is_open:
        return postprocess
    choices = [_known_choice(member, flags) for member in networks.members]
    if not networks.combines:
        return choices[0].fill(postprocess)
    return _fill_ensemble(postprocess, choices, [member.weight for member in networks.members])


def _known_choice(member: Member, flags: Flags) -> Choice:
    """Return the best setting that is known of a network: its file says it, or check_metric."""
    if flags.weights:
        shared = load_checkpoint(member.path).facts.shared
        return Choice(member.epoch, read_best(shared and shared.best, member.path))
    place = scores_path(member.run, flags.weights_dir)
    return choose_epoch(place, [member.epoch], member.epoch)


def _fill_ensemble(
    postprocess: Postprocess, choices: Sequence[Choice], weights: Sequence[float]
) -> Postprocess:
    """Take the mean of the best thresholds of an ensemble's networks, if all are known."""
    known = [choice.threshold_for(postprocess) for choice in choices]
    thresholds = [threshold for threshold in known if threshold is not None]
    if len(thresholds) < len(choices):
        return postprocess
    total = sum(map(operator.mul, thresholds, weights))
    return replace(
        postprocess,
        threshold=round(total / sum(weights), 4),
        threshold_from="check_metric, mean of the networks",
    )


def _with_batch_size(experiment: Experiment, flags: Flags) -> Experiment:
    return replace(experiment, batch_size=flags.batch_size or experiment.batch_size)
