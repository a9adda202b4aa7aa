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
from dataclasses import replace
from typing import TYPE_CHECKING

import config
from src.arguments import parse_arguments
from src.errors import InputError, report_errors
from src.models import ModelInfo, get_model_info
from src.runs import DEBUG_TAG, Run, check_tag
from src.threads import wait_passively

if TYPE_CHECKING:  # what an action needs is imported when it runs: `--help` waits for nothing
    from collections.abc import Sequence

    from src.datasets.annotations import Record
    from src.datasets.image_files import ImageFile
    from src.inference import Inference

DEFAULT_THRESHOLD = 0.3  # on score x 5, where no scores were saved; the second place's default


def main() -> None:
    arguments = parse_arguments(data_dir=config.DATA_DIR, output_dir=config.OUTPUT_DIR)
    wait_passively()
    with report_errors():
        if arguments.list_models:
            list_models()
            return
        info = get_model_info(
            arguments.model,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            n_epochs=arguments.num_epochs,
        )
        tag = check_tag(arguments.run)
        if arguments.debug:
            tag = f"{tag}_{DEBUG_TAG}" if tag else DEBUG_TAG
        run = Run(arguments.model, arguments.fold, tag, arguments.output_dir)
        actions = {
            "train": train,
            "check_metric": check_metric,
            "generate_predictions": generate_predictions,
            "test_model": test_model,
            "check_data": check_data,
        }
        actions[arguments.action](run, info, arguments)


def list_models() -> None:
    """Print the experiments with their effective settings."""
    from src.models import MODELS, count_parameters

    row = "{:42} {:30} {:>5} {:>5} {:>5} {:>9} {:>10}  {}"
    print(row.format("model", "encoder", "input", "batch", "augm.", "dropout", "parameters", ""))
    for name, info in MODELS.items():
        notes = [f"from scratch, batch norm {'trained' if info.trains_batch_norm else 'frozen'}"]
        notes = [] if info.pretrained else notes
        notes += [info.optimizer] if info.optimizer != "adam" else []
        notes += [f"boxes by {info.box_points}"] if info.box_points != "thirds" else []
        notes += [f"P{info.pyramid_levels[0]} to P{info.pyramid_levels[-1]}"]
        dropout = f"{info.dropout_class:g}, {info.dropout_global:g}"
        print(
            row.format(
                name,
                info.encoder,
                info.img_size,
                info.batch_size,
                info.augmentation_level,
                dropout,
                f"{count_parameters(info):,}",
                "; ".join(notes),
            ),
            flush=True,
        )


def train(run: Run, info: ModelInfo, arguments: argparse.Namespace) -> None:
    """Train an experiment on three folds, validate on the fourth after every epoch."""
    from src.datasets.loaders import load_labelled_images
    from src.engine import choose_device
    from src.inference import checkpoint_path
    from src.retinanet.encoders.weights import find_weights
    from src.training import Training, TrainingOptions

    device = choose_device(arguments.device)
    images = load_labelled_images(arguments.data_dir, run.fold, debug=arguments.debug)
    weights_path = None
    if arguments.from_epoch:
        weights_path = checkpoint_path(run, arguments.from_epoch - 1, arguments.weights_dir)
    encoder_weights = arguments.encoder_weights
    goes_on = weights_path is not None or (arguments.resume and run.last_checkpoint_path.exists())
    if not goes_on and (info.pretrained or encoder_weights is not None):
        encoder_weights = find_weights(
            info.encoder, weights_dir=config.WEIGHTS_DIR, encoder_weights=encoder_weights
        )
    training = Training(
        run,
        info,
        images,
        TrainingOptions(
            device=device,
            seed=arguments.seed,
            n_workers=arguments.num_workers,
            resume=arguments.resume,
            from_epoch=arguments.from_epoch,
            weights_path=weights_path,
            encoder_weights=encoder_weights,
        ),
    )
    print(
        f"{run.name}: {len(images.train)} training images, {len(images.valid)} for validation, "
        f"epochs {training.next_epoch} to {info.n_epochs - 1} on {device}"
    )
    training.finish()
    print(run.dir)


def check_metric(run: Run, info: ModelInfo, arguments: argparse.Namespace) -> None:
    """Score the saved predictions at the paper's thresholds; save and show the table."""
    from src.scores import sweep_run
    from src.visualizations.figures import save_figure
    from src.visualizations.plot_sweep import plot_sweep

    epochs = _chosen_epochs(arguments, run.epochs_with_predictions(), run)
    sweep = sweep_run(run.dir, epochs, nms=(arguments.nms,))
    sweep.save(run.scores_path)
    table = sweep.table().pivot(index="epoch", columns="threshold", values="score")
    print(table.to_string(float_format="%.3f"))
    best = sweep.best()
    print(
        f"best score {best['score']:.4f} at epoch {best['epoch']}, threshold {best['threshold']:g}"
    )
    pictures = save_figure(plot_sweep(sweep, run.name), run.pics_dir / "scores.png")
    print(run.scores_path, run.scores_path.with_suffix(".csv"), *pictures, sep="\n")


def generate_predictions(run: Run, info: ModelInfo, arguments: argparse.Namespace) -> None:
    """Predict the validation fold, the test images or other files; write .npz and CSV."""
    from src.datasets.annotations import DataFolder
    from src.submission import check_ids, prediction_strings, read_sample_ids, write_submission

    if arguments.folds or arguments.tta:
        _predict_by_ensemble(run, info, arguments)
        return
    if arguments.input is not None:
        _predict_files(run, info, arguments)
        return
    inference = _make_inference(run, info, arguments)
    sample = DataFolder(arguments.data_dir).sample_submission_path
    for epoch in _epochs_to_use(run, arguments):
        predictions, path = inference.predict_split(arguments.split, arguments.data_dir, epoch)
        threshold = _threshold(run, epoch, arguments.threshold)
        strings = prediction_strings(predictions, threshold=threshold, nms=arguments.nms)
        order = list(strings)
        if arguments.split == "test" and sample.exists():
            order = read_sample_ids(sample)
            check_ids(list(strings), order, sample)
        submission = run.submission_path(arguments.split, epoch)
        write_submission(submission, strings, order)
        n_with_boxes = sum(bool(text) for text in strings.values())
        print(
            f"epoch {epoch}: {len(strings)} images, {n_with_boxes} with boxes at threshold "
            f"{threshold:g}\n{path}\n{submission}"
        )


def _predict_files(run: Run, info: ModelInfo, arguments: argparse.Namespace) -> None:
    """Predict the files of --input; write .npz, a row for each box, and pictures if asked."""
    from src.datasets.test_dataset import TestDataset
    from src.inference import draw_files, write_boxes
    from src.training import sample_options

    files = _input_files(arguments)
    inference = _make_inference(run, info, arguments)
    for epoch in _epochs_to_use(run, arguments):
        predictions = inference.predict_files(files, epoch)
        out_dir = arguments.out or run.dir / "inputs" / arguments.input.resolve().stem
        out_dir = out_dir / f"{epoch:03}"
        chosen = {"threshold": _threshold(run, epoch, arguments.threshold), "nms": arguments.nms}
        predictions.save(out_dir / "predictions.npz")
        write_boxes(out_dir / "boxes.csv", predictions, **chosen)
        if arguments.overlays:
            dataset = TestDataset(files, sample_options(info))
            draw_files(out_dir / "overlays", files, predictions, dataset, **chosen)
        print(f"epoch {epoch}: {len(files)} images at threshold {chosen['threshold']:g}\n{out_dir}")


def _input_files(arguments: argparse.Namespace) -> list[ImageFile]:
    """List the files of --input, without the unreadable ones where these may be skipped."""
    from src.datasets.image_files import find_image_files, split_unreadable

    files = find_image_files(arguments.input)
    if not arguments.skip_unreadable:
        return files
    files, unreadable = split_unreadable(files, arguments.num_workers or 1)
    for file in unreadable:
        print(f"skipped: {file.cause}", file=sys.stderr)
    if not files:
        raise InputError(f"{arguments.input}: none of its {len(unreadable)} files is readable")
    return files


def _predict_by_ensemble(run: Run, info: ModelInfo, arguments: argparse.Namespace) -> None:
    """Predict test images, or the files of --input, by several folds and epochs at once."""
    from src.datasets.annotations import DataFolder
    from src.datasets.image_files import find_challenge_images
    from src.inference import EnsembleOptions, write_boxes
    from src.submission import prediction_strings, write_submission

    if arguments.input is None and arguments.split != "test":
        raise InputError("--folds and --tta need --split test or --input: the folds of an "
                         "ensemble have seen each other's validation images")  # fmt: skip
    runs = [replace(run, fold=fold) for fold in arguments.folds or [run.fold]]
    members = [(r.fold, epoch) for r in runs for epoch in _epochs_to_use(r, arguments)]
    if arguments.input is None:
        files = find_challenge_images(DataFolder(arguments.data_dir).images_dir("test"))
        out_dir = run.ensemble_dir / "test"
    else:
        files = _input_files(arguments)
        out_dir = run.ensemble_dir / arguments.input.resolve().stem
    out_dir = arguments.out or out_dir
    options = EnsembleOptions(
        size_rule=arguments.combine, k=arguments.k, hflip=arguments.tta == "hflip"
    )
    inference = _make_inference(run, info, arguments)
    predictions = inference.predict_by_ensemble(files, members, options)
    threshold = DEFAULT_THRESHOLD if arguments.threshold is None else arguments.threshold
    predictions.save(out_dir / "predictions.npz")
    write_boxes(out_dir / "boxes.csv", predictions, threshold=threshold, nms=arguments.nms)
    strings = prediction_strings(predictions, threshold=threshold, nms=arguments.nms)
    write_submission(out_dir / "submission.csv", strings, strings)
    print(f"{len(members)} members, {len(files)} images at threshold {threshold:g}\n{out_dir}")


def test_model(run: Run, info: ModelInfo, arguments: argparse.Namespace) -> None:
    """Draw true and found boxes over validation images."""
    from src.datasets.detection_dataset import ValidationDataset
    from src.datasets.loaders import load_labelled_images
    from src.training import sample_options
    from src.visualizations.overlays import contact_sheet, draw_predictions, save_picture

    inference = _make_inference(run, info, arguments)
    images = load_labelled_images(arguments.data_dir, run.fold, debug=arguments.debug)
    records = _pick_images(images.valid, arguments.num_images)
    dataset = ValidationDataset(records, images.images_dir, sample_options(info))
    for epoch in _epochs_to_use(run, arguments):
        predictions = inference.predict(dataset, epoch)
        threshold = _threshold(run, epoch, arguments.threshold)
        folder = run.pics_dir / f"{epoch:03}"
        pictures = []
        for i, record in enumerate(records):
            image = dataset[i].image[0].numpy()
            pictures.append(
                draw_predictions(image, predictions, i, threshold=threshold, nms=arguments.nms)
            )
            save_picture(folder / f"{record.patient_id}.png", pictures[-1])
        save_picture(folder / "overview.png", contact_sheet(pictures))
        print(f"epoch {epoch}: {len(records)} pictures and overview.png\n{folder}")


def check_data(run: Run, info: ModelInfo, arguments: argparse.Namespace) -> None:
    """Look through the data folder; end with an error where a training of the fold would fail."""
    from src.datasets.annotations import DataFolder
    from src.datasets.data_check import check_data_folder, describe, verdict, write_findings

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


def _make_inference(run: Run, info: ModelInfo, arguments: argparse.Namespace) -> Inference:
    from src.engine import choose_device
    from src.inference import Inference

    return Inference(
        run=run,
        info=info,
        device=choose_device(arguments.device),
        n_workers=arguments.num_workers,
        weights_dir=arguments.weights_dir,
        debug=arguments.debug,
        overwrite=arguments.overwrite,
    )


def _pick_images(records: Sequence[Record], n_images: int) -> list[Record]:
    """Take two images with boxes for each one without, as far as there are."""
    with_boxes = [record for record in records if len(record.boxes_xywh)]
    without = [record for record in records if not len(record.boxes_xywh)]
    n_without = max(n_images // 3, n_images - len(with_boxes))
    return with_boxes[: n_images - min(n_without, len(without))] + without[:n_without]


def _chosen_epochs(arguments: argparse.Namespace, saved: list[int], run: Run) -> list[int] | None:
    """Return the epochs that the flags name, None where they name none."""
    if arguments.epoch is not None:
        return list(arguments.epoch)
    if not arguments.from_epoch and arguments.num_epochs is None:
        return None
    stop = arguments.num_epochs or max(saved, default=0) + 1
    epochs = [epoch for epoch in saved if arguments.from_epoch <= epoch < stop]
    if not epochs:
        raise InputError(f"{run.dir}: has no epoch from {arguments.from_epoch} to {stop - 1}")
    return epochs


def _epochs_to_use(run: Run, arguments: argparse.Namespace) -> list[int]:
    """Take the epochs that the flags name, else the best one by check_metric, else the last."""
    source = (
        run if arguments.weights_dir is None else replace(run, output_dir=arguments.weights_dir)
    )
    saved = source.epochs_with_checkpoint()
    epochs = _chosen_epochs(arguments, saved, source)
    if epochs is not None:
        return epochs
    if run.scores_path.exists():
        from src.scores import load_sweep

        return [load_sweep(run.scores_path).best()["epoch"]]
    if not saved:
        raise InputError(f"{source.dir}: holds no checkpoints; --action train makes them")
    return [saved[-1]]


def _threshold(run: Run, epoch: int, given: float | None) -> float:
    """Take the threshold from the flag, else the epoch's best by check_metric, else the default."""
    if given is not None or not run.scores_path.exists():
        return DEFAULT_THRESHOLD if given is None else given
    from src.scores import load_sweep

    sweep = load_sweep(run.scores_path)
    return float(sweep.best(epoch)["threshold"]) if epoch in sweep.epochs else DEFAULT_THRESHOLD


if __name__ == "__main__":
    main()
