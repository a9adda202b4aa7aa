"""Train, score, predict, look: the command line of the project.

python src/train_runner.py --action train --model se_resnext101_dr0.75_512 --fold 0
python src/train_runner.py --action check_metric --model se_resnext101_dr0.75_512 --fold 0
python src/train_runner.py --action generate_predictions --split test ...
python src/train_runner.py --action test_model ...
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from typing import TYPE_CHECKING

import config
from src.actions.flags import parse_arguments
from src.experiments.experiment import Experiment
from src.experiments.runs import DEBUG_TAG, ENSEMBLE_TAG, Run, check_owner, check_tag
from src.experiments.table import get_experiment
from src.system.command_line import report_errors
from src.system.errors import InputError
from src.system.processes import tune_process

if TYPE_CHECKING:  # what an action needs is imported when it runs: `--help` waits for nothing
    from src.system.distributed import Processes
    from src.training.loop import Training


def main() -> None:
    arguments = parse_arguments(data_dir=config.DATA_DIR, output_dir=config.OUTPUT_DIR)
    tune_process()
    with report_errors():
        if arguments.list_models:
            list_models()
            return
        experiment = _experiment_settings(arguments)
        tag = check_tag(arguments.run)
        if arguments.debug:
            tag = f"{tag}_{DEBUG_TAG}" if tag else DEBUG_TAG
        run = Run(arguments.model, arguments.fold, tag, arguments.output_dir)
        check_owner(run)
        actions = {
            "train": train,
            "check_metric": check_metric,
            "generate_predictions": generate_predictions,
            "test_model": test_model,
            "check_data": check_data,
        }
        actions[arguments.action](run, experiment, arguments)


def _experiment_settings(arguments: argparse.Namespace) -> Experiment:
    """Look up the experiment of --model, or take the one of --from-experiment with all it says."""
    changes = {
        "batch_size": arguments.batch_size,
        "accumulate": arguments.accumulate,
        "learning_rate": arguments.learning_rate,
        "n_epochs": arguments.num_epochs,
    }
    if arguments.from_experiment is None:
        return get_experiment(arguments.model, **changes)
    from src.experiments.experiment_file import read_stored_training

    stored = read_stored_training(arguments.from_experiment)
    arguments.model, arguments.fold = stored.model, stored.fold
    arguments.seed, arguments.precision = stored.seed, stored.precision
    arguments.expected_fingerprint = stored.data_fingerprint
    return stored.settings


def list_models() -> None:
    """Print the experiments with their effective settings."""
    from src.experiments.networks import count_parameters
    from src.experiments.table import EXPERIMENTS

    row = "{:42} {:30} {:>5} {:>5} {:>5} {:>9} {:>10}  {}"
    print(row.format("model", "encoder", "input", "batch", "augm.", "dropout", "parameters", ""))
    for name, experiment in EXPERIMENTS.items():
        notes = [
            f"from scratch, batch norm {'trained' if experiment.trains_batch_norm else 'frozen'}"
        ]
        notes = [] if experiment.pretrained else notes
        notes += [experiment.optimizer] if experiment.optimizer != "adam" else []
        notes += [f"boxes by {experiment.box_points}"] if experiment.box_points != "thirds" else []
        notes += [f"P{experiment.pyramid_levels[0]} to P{experiment.pyramid_levels[-1]}"]
        dropout = f"{experiment.dropout_class:g}, {experiment.dropout_global:g}"
        print(
            row.format(
                name,
                experiment.encoder,
                experiment.img_size,
                experiment.batch_size,
                experiment.augmentation_level,
                dropout,
                f"{count_parameters(experiment):,}",
                "; ".join(notes),
            ),
            flush=True,
        )


def train(run: Run, experiment: Experiment, arguments: argparse.Namespace) -> None:
    """Train an experiment on three folds, validate on the fourth after every epoch."""
    if f"_{run.tag}".endswith(f"_{ENSEMBLE_TAG}"):
        raise InputError(f"--run {run.tag}: that end is kept for ensembles; take another")
    from src.system.distributed import joined_processes

    with joined_processes(arguments.device) as processes:
        training = _make_training(run, experiment, arguments, processes)
        training.start()
        if processes.is_first:
            print(training.describe(), flush=True)
        training.run()
        if processes.is_first:
            print(run.dir)


def _make_training(
    run: Run, experiment: Experiment, arguments: argparse.Namespace, processes: Processes
) -> Training:
    from src.actions.resolve import choose_acceleration
    from src.datasets.loaders import load_labelled_images
    from src.experiments.experiment_file import as_trained
    from src.experiments.networks import checkpoint_path
    from src.retinanet.encoders.weights import find_weights
    from src.training.loop import Training
    from src.training.options import TrainingOptions

    if arguments.resume or arguments.from_epoch:
        experiment = as_trained(run.at(arguments.weights_dir), experiment)
    acceleration = choose_acceleration(arguments)
    images = load_labelled_images(
        arguments.data_dir, run.fold, debug=arguments.debug, cache_dir=arguments.cache_dir
    )
    weights_path = None
    if arguments.from_epoch:
        weights_path = checkpoint_path(run, arguments.from_epoch - 1, arguments.weights_dir)
    encoder_weights = None
    goes_on = weights_path is not None or (arguments.resume and run.last_checkpoint_path.exists())
    if not goes_on and (experiment.pretrained or arguments.encoder_weights is not None):
        encoder_weights = find_weights(
            experiment.encoder,
            weights_dir=config.WEIGHTS_DIR,
            encoder_weights=arguments.encoder_weights,
        )
    options = TrainingOptions(
        acceleration=acceleration,
        processes=processes,
        seed=arguments.seed,
        n_workers=arguments.num_workers,
        resume=arguments.resume,
        from_epoch=arguments.from_epoch,
        weights_path=weights_path,
        encoder_weights=encoder_weights,
        checkpoint_minutes=arguments.checkpoint_minutes,
        skips_non_finite=arguments.skip_non_finite,
        data_fingerprint=arguments.expected_fingerprint,
    )
    return Training(run, experiment, images, options)


def check_metric(run: Run, experiment: Experiment, arguments: argparse.Namespace) -> None:
    """Score the saved predictions at the paper's thresholds; save and show the table."""
    from src.actions.resolve import choose_epochs, settle_postprocess
    from src.scoring.sweep import Grid, sweep_run
    from src.visualizations.figures import save_figure
    from src.visualizations.plot_sweep import plot_sweep

    epochs = choose_epochs(arguments, run.epochs_with_predictions(), run)
    postprocess = settle_postprocess(arguments)
    grid = Grid(gates=(postprocess.gate,), shrinks=(postprocess.shrink,), nms=(postprocess.nms,))
    sweep = sweep_run(run.dir, epochs, grid)
    sweep.save(run.scores_path)
    table = sweep.table().pivot(index="epoch", columns="threshold", values="score")
    print(table.to_string(float_format="%.3f"))
    best = sweep.best()
    print(
        f"best score {best['score']:.4f} at epoch {best['epoch']}, threshold {best['threshold']:g}"
        if best["score"] > 0
        else "no epoch hits a true box; a longer training might"
    )
    pictures = save_figure(plot_sweep(sweep, run.name), run.pics_dir / "scores.png")
    print(run.scores_path, run.scores_path.with_suffix(".csv"), *pictures, sep="\n")


def generate_predictions(run: Run, experiment: Experiment, arguments: argparse.Namespace) -> None:
    """Predict the validation fold, the test images or other files; write .npz and CSV."""
    from src.actions.generate_predictions import predict_files, predict_split
    from src.actions.resolve import asks_for_ensemble
    from src.system.distributed import joined_processes

    alone_or_valid = arguments.split == "valid" or not asks_for_ensemble(arguments)
    predict = predict_split if arguments.input is None and alone_or_valid else predict_files
    with joined_processes(arguments.device) as processes:
        predict(run, experiment, arguments, processes)


def test_model(run: Run, experiment: Experiment, arguments: argparse.Namespace) -> None:
    """Draw true and found boxes over validation images."""
    from src.actions.generate_predictions import draw_validation

    draw_validation(run, experiment, arguments)


def check_data(run: Run, experiment: Experiment, arguments: argparse.Namespace) -> None:
    """Look through the data folder; end with an error where a training of the fold would fail."""
    from src.datasets.data_check import check_data_folder, describe, verdict, write_findings
    from src.datasets.data_folder import DataFolder

    findings = check_data_folder(
        DataFolder(arguments.data_dir),
        run.fold,
        full=arguments.full,
        n_workers=arguments.num_workers,
    )
    path = arguments.out or arguments.output_dir / "check_data.csv"
    write_findings(path, findings)
    print(*describe(findings), path, sep="\n", flush=True)
    would_run, sentence = verdict(findings, run.fold)
    if not would_run:
        raise InputError(f"{arguments.data_dir}: {sentence}")
    print(sentence)


if __name__ == "__main__":
    main()
