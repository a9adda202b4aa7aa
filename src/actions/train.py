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
from src.experiments.checkpoints import CheckpointFacts, load_checkpoint
from src.experiments.experiment import Experiment
from src.experiments.experiment_file import StoredTraining, read_stored_training
from src.experiments.runs import Run, require_weights
from src.experiments.table import get_experiment
from src.retinanet.encoders.weights import find_weights
from src.system.distributed import Processes, joined_processes
from src.system.errors import InputError
from src.training.loop import Training
from src.training.options import TrainingOptions
from src.training.run_files import TrainingFiles
from src.visualizations.examples import draw_examples


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
    runs = [choose_run(replace(flags, fold=fold)) for fold in flags.folds or (flags.fold,)]
    deadline = time.monotonic() + 3600 * (flags.max_hours or math.inf)  # of all of them
    with joined_processes(flags.device) as processes:
        plans = [
            _plan(run, flags, repeated, processes, encoder_weights_dir, deadline) for run in runs
        ]
        for plan in plans:
            TrainingFiles(plan.run, plan.experiment, plan.options).find_last()
        for plan in plans:
            _run_training(plan)
            if processes.is_first:
                print(plan.run.dir)


def _plan(
    run: Run,
    flags: Flags,
    repeated: StoredTraining | None,
    processes: Processes,
    encoder_weights_dir: Path,
    deadline: float,
) -> Plan:
    """Settle a training: a new one, one that goes on, or one that is repeated."""
    began = _began(run, flags)
    state = began and began.training  # of one that is resumed
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
    seed = flags.seed if flags.seed is not None else state.seed if state else DEFAULT_SEED
    precision = flags.precision or (state.precision if state else None)
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
        checkpoint_minutes=flags.checkpoint_minutes,
        skips_non_finite=flags.skip_non_finite,
        weak=flags.weak,
        data_fingerprint=repeated.data_fingerprint if repeated else None,
        split_fingerprint=repeated.split_fingerprint if repeated else None,
        patience=flags.patience,
        deadline=deadline,
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
    stored = read_stored_training(flags.from_experiment)
    init_weights = flags.init_weights
    if stored.init_weights is not None:
        init_weights = init_weights or Path(stored.init_weights.path)
    elif init_weights is not None:
        raise InputError(
            f"--init-weights {init_weights}: the training of {flags.from_experiment} began without"
        )
    flags = replace(
        flags,
        models=(stored.model,),
        fold=stored.fold,
        seed=stored.seed,
        precision=stored.precision,
        init_weights=init_weights,
    )
    return flags, stored


def _began(run: Run, flags: Flags) -> CheckpointFacts | None:
    """Return what a training that goes on says of itself; None where one begins."""
    if flags.resume and (last := run.find_last_checkpoint()) is not None:
        return load_checkpoint(last, run.model).facts
    if flags.from_epoch:
        path = run.at(flags.weights_dir).find_checkpoint(flags.from_epoch - 1)
        return None if path is None else load_checkpoint(path, run.model).facts
    return None


def _find_weights(
    run: Run, experiment: Experiment, flags: Flags, encoder_weights_dir: Path
) -> tuple[Path | None, Path | None]:
    """Find the weights that a training starts from.

    Returns:
        The checkpoint of the epoch before --from-epoch, and the encoder's pretrained weights; each
        None where the training does without, as with --init-weights.

    Raises:
        InputError: the weights are not there, or cannot be downloaded.
    """
    if flags.from_epoch:
        source, epoch = run.at(flags.weights_dir), flags.from_epoch - 1
        path = source.find_checkpoint(epoch) or source.checkpoint_path(epoch)
        return require_weights(path), flags.encoder_weights
    resumes = flags.resume and run.find_last_checkpoint() is not None
    is_complete = resumes or flags.init_weights is not None
    if is_complete or not (experiment.pretrained or flags.encoder_weights):
        return None, flags.encoder_weights
    return None, find_weights(
        experiment.encoder,
        weights_dir=encoder_weights_dir,
        encoder_weights=flags.encoder_weights,
        named=experiment.pretrained if isinstance(experiment.pretrained, str) else None,
    )
