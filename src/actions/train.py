"""Train an experiment, or repeat the training that an experiment.json describes."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from src.actions.device import choose_acceleration
from src.actions.flags import DEFAULT_SEED, Flags
from src.actions.resolve import change_experiment, choose_run, find_changes, name_changed
from src.datasets.loaders import LabelledImages, load_labelled_images
from src.experiments.checkpoints import load_checkpoint
from src.experiments.experiment import Experiment
from src.experiments.experiment_file import (
    StoredTraining,
    WeightsFile,
    read_stored_training,
)
from src.experiments.runs import Run, require_weights
from src.experiments.table import get_experiment
from src.retinanet.encoders.weights import find_weights
from src.structures import Precision
from src.system.distributed import Processes, joined_processes
from src.system.errors import InputError, Interrupted
from src.system.processes import StopRequest
from src.training.ending import find_signal
from src.training.loop import Training
from src.training.options import TrainingOptions
from src.training.run_files import TrainingFiles
from src.visualizations.examples import draw_examples


class Beginning(NamedTuple):
    """How a training that goes on began; seed and precision may be unknown."""

    settings: Experiment
    seed: int | None = None
    precision: Precision | None = None


class Plan(NamedTuple):
    """One training that is settled, and has not begun."""

    run: Run
    experiment: Experiment
    images: LabelledImages
    options: TrainingOptions


def train(flags: Flags, *, encoder_weights_dir: Path) -> None:
    """Train an experiment on all folds but one, validate on that one after every epoch.

    With --folds, one training follows another; what would stop one of them before it begins stops
    the command before the first.

    Args:
        encoder_weights_dir: folder of downloaded ImageNet weights.
    """
    flags, repeated = _repeat_training(name_changed(flags))
    folds = dict.fromkeys(flags.folds or (flags.fold,))
    runs = [choose_run(replace(flags, fold=fold)) for fold in folds]
    stop = StopRequest(time.monotonic() + 3600 * (flags.max_hours or math.inf))  # of all of them
    with joined_processes(flags.device) as processes:
        plans = [_plan(run, flags, repeated, processes, encoder_weights_dir, stop) for run in runs]
        for plan in plans:
            files = TrainingFiles(plan.run, plan.experiment, plan.options)
            if files.find_last() is not None:
                files.check_images(plan.images)
        for plan in plans:
            if signal := find_signal(stop, processes):  # it came when the last one was complete
                raise Interrupted(
                    f"stopped by {signal.name} before fold {plan.run.fold}; --resume goes on there",
                    signal,
                )
            _run_training(plan)
            if processes.is_first:
                print(plan.run.dir)


def _plan(
    run: Run,
    flags: Flags,
    repeated: StoredTraining | None,
    processes: Processes,
    encoder_weights_dir: Path,
    stop: StopRequest,
) -> Plan:
    """Settle a training: a new one, one that goes on, or one that is repeated."""
    began = _began(run, flags)
    if repeated:
        experiment = repeated.settings
    else:  # a training that goes on has the settings that it began with
        experiment = began.settings if began else get_experiment(flags.model)
        experiment = change_experiment(experiment, find_changes(flags))
    images = load_labelled_images(
        flags.data_dir, run.fold, debug=flags.debug, cache_dir=flags.cache_dir
    )
    weights_path, encoder_weights = _find_weights(run, experiment, flags, encoder_weights_dir)
    init_weights = repeated and repeated.init_weights
    stored_encoder = repeated and repeated.encoder_weights
    seed = next(s for s in (flags.seed, began and began.seed, DEFAULT_SEED) if s is not None)
    precision = flags.precision or (began and began.precision)
    options = TrainingOptions(
        acceleration=choose_acceleration(replace(flags, precision=precision)),
        processes=processes,
        seed=seed,
        n_workers=flags.num_workers,
        resume=flags.resume,
        from_epoch=flags.from_epoch,
        weights_path=weights_path,
        init_weights=flags.init_weights,
        init_sha256=init_weights.sha256 if init_weights else None,
        encoder_weights=encoder_weights,
        encoder_sha256=stored_encoder.sha256 if stored_encoder else None,
        checkpoint_minutes=flags.checkpoint_minutes,
        skips_non_finite=flags.skip_non_finite,
        weak=flags.weak,
        data_fingerprint=repeated.data_fingerprint if repeated else None,
        split_fingerprint=repeated.split_fingerprint if repeated else None,
        patience=flags.patience,
        stop=stop,
        draw_epoch=draw_examples,
    )
    return Plan(run, experiment, images, options)


def _run_training(plan: Plan) -> None:
    """Train; the network is gone before the processes part, as `joined_processes` wants it."""
    training = Training(*plan)
    training.start()
    if plan.options.processes.is_first:
        print(training.describe(), flush=True)
    ending = training.run()
    if plan.options.processes.is_first:
        print(ending.words)


def _repeat_training(flags: Flags) -> tuple[Flags, StoredTraining | None]:
    """Read the training of --from-experiment.

    Returns:
        The flags, with what the experiment.json says in place of their own values; the training
        that is repeated, if one is.

    Raises:
        InputError: the experiment.json cannot be used, or is of a training that began otherwise.
    """
    if flags.from_experiment is None:
        return flags, None
    source = flags.from_experiment
    stored = read_stored_training(source)
    if stored.weights_path is not None:
        raise InputError(
            f"{source}: tells of a training that --from-epoch began with {stored.weights_path}; "
            f"only one that began at epoch 0 can be repeated"
        )
    encoder_weights = _path_of(
        "--encoder-weights", flags.encoder_weights, stored.encoder_weights, source
    )
    if flags.encoder_weights is None and encoder_weights and stored.settings.pretrained:
        # Published weights are looked for as ever where they lie elsewhere on this machine.
        encoder_weights = encoder_weights if encoder_weights.is_file() else None
    flags = replace(
        flags,
        models=(stored.model,),
        fold=stored.fold,
        seed=stored.seed,
        precision=stored.precision,
        init_weights=_path_of("--init-weights", flags.init_weights, stored.init_weights, source),
        encoder_weights=encoder_weights,
    )
    return flags, stored


def _path_of(
    flag: str, given: Path | None, stored: WeightsFile | None, source: Path
) -> Path | None:
    """Return where weights lie that a repeated training begins with; a flag's path comes first.

    Raises:
        InputError: a flag gives weights to a training that began without.
    """
    if stored is None and given is not None:
        raise InputError(f"{flag} {given}: the training of {source} began without")
    return given or (Path(stored.path) if stored else None)


def _began(run: Run, flags: Flags) -> Beginning | None:
    """Return how a training that goes on began; None where one begins."""
    if flags.resume and (last := run.find_last_checkpoint()) is not None:
        facts = load_checkpoint(last, run.model).facts
        state = facts.training
        return Beginning(facts.settings, *((state.seed, state.precision) if state else ()))
    source = run.at(flags.weights_dir)
    path = source.find_checkpoint(flags.from_epoch - 1) if flags.from_epoch else None
    if path is None:
        return None
    settings = load_checkpoint(path, run.model).facts.settings
    if not source.experiment_path.exists():
        return Beginning(settings)
    stored = read_stored_training(source.experiment_path)
    return Beginning(settings, stored.seed, stored.precision)


def _find_weights(
    run: Run, experiment: Experiment, flags: Flags, encoder_weights_dir: Path
) -> tuple[Path | None, Path | None]:
    """Find the weights that a training starts from.

    Returns:
        The checkpoint of the epoch before --from-epoch, and the encoder's pretrained weights; each
        None where the training does without, as with --init-weights, or when it is resumed.

    Raises:
        InputError: the weights are not there, or cannot be downloaded.
    """
    if flags.resume and run.find_last_checkpoint() is not None:
        return None, None
    if flags.from_epoch:
        source, epoch = run.at(flags.weights_dir), flags.from_epoch - 1
        path = source.find_checkpoint(epoch) or source.checkpoint_path(epoch)
        return require_weights(path), flags.encoder_weights
    if flags.init_weights or not (experiment.pretrained or flags.encoder_weights):
        return None, None
    return None, find_weights(
        experiment.encoder,
        weights_dir=encoder_weights_dir,
        encoder_weights=flags.encoder_weights,
        named=experiment.pretrained if isinstance(experiment.pretrained, str) else None,
    )
