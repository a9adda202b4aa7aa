"""Train an experiment, or repeat the training that an experiment.json describes."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

from src.actions.device import choose_acceleration
from src.actions.flags import Flags
from src.actions.resolve import choose_experiment, choose_run
from src.datasets.loaders import LabelledImages, load_labelled_images
from src.experiments.experiment_file import StoredTraining, as_trained, read_stored_training
from src.experiments.networks import checkpoint_path
from src.experiments.runs import Run
from src.experiments.table import Experiment
from src.retinanet.encoders.weights import find_weights
from src.system.distributed import joined_processes
from src.system.errors import InputError
from src.training.loop import Training
from src.training.options import TrainingOptions
from src.visualizations.examples import draw_examples


def train(flags: Flags, *, encoder_weights_dir: Path) -> None:
    """Train an experiment on three folds, validate on the fourth after every epoch.

    Args:
        encoder_weights_dir: folder of downloaded ImageNet weights.
    """
    flags, experiment, repeated = _choose_training(flags)
    init_sha256 = repeated.init_weights.sha256 if repeated and repeated.init_weights else None
    run = choose_run(flags)
    if flags.resume or flags.from_epoch:
        experiment = as_trained(run.at(flags.weights_dir), experiment)
    with joined_processes(flags.device) as processes:
        acceleration = choose_acceleration(flags)
        images = load_labelled_images(
            flags.data_dir, run.fold, debug=flags.debug, cache_dir=flags.cache_dir
        )
        weights_path, encoder_weights = _find_weights(run, experiment, flags, encoder_weights_dir)
        options = TrainingOptions(
            acceleration=acceleration,
            processes=processes,
            seed=flags.seed,
            n_workers=flags.num_workers,
            resume=flags.resume,
            from_epoch=flags.from_epoch,
            weights_path=weights_path,
            init_weights=flags.init_weights,
            init_sha256=init_sha256,
            encoder_weights=encoder_weights,
            checkpoint_minutes=flags.checkpoint_minutes,
            skips_non_finite=flags.skip_non_finite,
            weak=flags.weak,
            data_fingerprint=repeated.data_fingerprint if repeated else None,
            patience=flags.patience,
            deadline=time.monotonic() + 3600 * (flags.max_hours or math.inf),
            draw_epoch=draw_examples,
        )
        _run_training(run, experiment, images, options)
        if processes.is_first:
            print(run.dir)


def _run_training(
    run: Run, experiment: Experiment, images: LabelledImages, options: TrainingOptions
) -> None:
    """Train; the network is gone before the processes part, as `joined_processes` wants it."""
    training = Training(run, experiment, images, options)
    training.start()
    if options.processes.is_first:
        print(training.describe(), flush=True)
    ending = training.run()
    if options.processes.is_first:
        print(ending.words)


def _choose_training(flags: Flags) -> tuple[Flags, Experiment, StoredTraining | None]:
    """Choose what is trained: the experiment of --model, or the training of --from-experiment.

    Returns:
        The flags, with what the experiment.json says in place of their own values; the experiment;
        the training that is repeated, if one is.

    Raises:
        InputError: the experiment.json cannot be used, or is of a training that began otherwise.
    """
    if flags.from_experiment is None:
        return flags, choose_experiment(flags), None
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
    return flags, stored.settings, stored


def _find_weights(
    run: Run, experiment: Experiment, flags: Flags, encoder_weights_dir: Path
) -> tuple[Path | None, Path | None]:
    """Find the weights that a training starts from.

    Returns:
        The checkpoint of the epoch before --from-epoch, and the encoder's ImageNet weights; each
        None where the training does without, as with --init-weights.

    Raises:
        InputError: the weights are not there, or cannot be downloaded.
    """
    if flags.from_epoch:
        return checkpoint_path(run, flags.from_epoch - 1, flags.weights_dir), flags.encoder_weights
    resumes = flags.resume and run.find_last_checkpoint() is not None
    is_complete = resumes or flags.init_weights is not None
    if is_complete or not (experiment.pretrained or flags.encoder_weights):
        return None, flags.encoder_weights
    return None, find_weights(
        experiment.encoder, weights_dir=encoder_weights_dir, encoder_weights=flags.encoder_weights
    )
