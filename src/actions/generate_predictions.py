"""What train_runner does with trained networks: predict a split or files, draw what they find."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from src.actions.resolve import (
    asks_for_ensemble,
    choose_acceleration,
    choose_members,
    epochs_to_use,
    settle_postprocess,
)
from src.datasets.annotations import Record
from src.datasets.data_folder import DataFolder
from src.datasets.detection_dataset import ValidationDataset
from src.datasets.loaders import load_labelled_images
from src.datasets.test_dataset import TestDataset
from src.experiments.experiment import Experiment
from src.experiments.experiment_file import as_trained, sample_options, write_description
from src.experiments.runs import Run, check_owner, ensemble_run, read_description
from src.prediction.inference import Inference
from src.prediction.outputs import save_submission, write_results
from src.prediction.postprocess import select_boxes
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess
from src.prediction.provenance import (
    Member,
    common_fold,
    describe_members,
    describe_networks,
    last_epoch,
    run_of,
)
from src.radiographs.image_files import (
    ImageFile,
    find_challenge_images,
    find_image_files,
    split_unreadable,
)
from src.system.distributed import ALONE, Processes
from src.system.errors import InputError
from src.system.files import check_place
from src.visualizations.overlays import contact_sheet, draw_predictions, save_picture


def predict_split(
    run: Run, experiment: Experiment, arguments: argparse.Namespace, processes: Processes
) -> None:
    """Predict the validation fold or the test images, each epoch by itself.

    An ensemble can predict the validation fold as well, if all its networks have left it out.

    Args:
        processes: share the images; the first one alone writes.
    """
    for flag, value in (("--out", arguments.out), ("--overlays", arguments.overlays)):
        if value:
            raise InputError(f"{flag} needs --input, or --split test and an ensemble")
    inference = _make_inference(arguments, processes)
    sample_path, hflip = _sample_path(arguments), arguments.tta == "hflip"
    for step in _plan(run, experiment, arguments):
        owner = run_of(step.members, hflip=hflip)
        check_owner(owner)
        check_place(owner.dir)
        if common_fold(step.members) is None:
            raise InputError("--split valid takes networks of one fold, which have not seen it; "
                             "--split test and --input take all")  # fmt: skip
        predictions, path = inference.predict_split(
            arguments.split, arguments.data_dir, step.members, step.postprocess, hflip=hflip
        )
        if not processes.is_first:
            continue
        if "ensemble" in predictions.header or not owner.experiment_path.exists():
            images = _images_place(arguments)
            _write_experiment(owner.dir, owner, predictions, step.postprocess, images)
        submission = owner.submission_path(arguments.split, last_epoch(step.members))
        n_with_boxes = save_submission(
            submission, predictions, path, step.postprocess, sample_path=sample_path
        )
        print(
            f"{step.name}: {len(predictions)} images, {n_with_boxes} with boxes at threshold "
            f"{step.postprocess.threshold:g}\n{path}\n{submission}"
        )


def predict_files(
    run: Run, experiment: Experiment, arguments: argparse.Namespace, processes: Processes
) -> None:
    """Predict the files of --input or the test images, by an ensemble or each epoch by itself.

    Args:
        processes: share the images; the first one alone writes.
    """
    inference = _make_inference(arguments, processes)
    images = _images_place(arguments)
    plan = list(_plan(run, experiment, arguments))
    for step in plan:
        _check_results(step, images, arguments)
        inference.find_weights(step.members)
    files = _files_to_predict(arguments)
    for step in plan:
        hflip = arguments.tta == "hflip"
        predictions = inference.predict_files(files, step.members, step.postprocess, hflip=hflip)
        if not processes.is_first:
            continue
        _write_experiment(step.folder, step.owner, predictions, step.postprocess, images)
        write_results(
            step.folder, files, predictions, step.postprocess, sample_path=_sample_path(arguments)
        )
        if arguments.overlays:
            dataset = TestDataset(files, sample_options(step.members[0].experiment))
            draw_files(step.folder / "overlays", dataset, predictions, step.postprocess)
        print(f"{step.name}: {len(files)} images at threshold {step.postprocess.threshold:g}")
        print(step.folder)


def draw_validation(run: Run, experiment: Experiment, arguments: argparse.Namespace) -> None:
    """Draw true and found boxes over validation images."""
    inference = _make_inference(arguments)
    images = load_labelled_images(
        arguments.data_dir, run.fold, debug=arguments.debug, cache_dir=arguments.cache_dir
    )
    experiment = as_trained(run.at(arguments.weights_dir), experiment)
    records = _pick_images(images.valid, arguments.num_images)
    dataset = ValidationDataset(records, images.source, sample_options(experiment))
    for epoch in epochs_to_use(run, arguments):
        member = Member(run=run, experiment=experiment, epoch=epoch)
        postprocess = settle_postprocess(arguments, [member])
        predictions = inference.predict(dataset, [member], postprocess)
        folder = run.pics_dir / f"{epoch:03}"
        pictures = []
        for found in select_boxes(predictions, postprocess):
            image = dataset[found.image].picture()
            pictures.append(draw_predictions(image, predictions, found))
            save_picture(folder / f"{records[found.image].patient_id}.png", pictures[-1])
        save_picture(folder / "overview.png", contact_sheet(pictures))
        print(f"epoch {epoch}: {len(records)} pictures and overview.png\n{folder}")


def draw_files(
    folder: Path, dataset: TestDataset, predictions: Predictions, postprocess: Postprocess
) -> None:
    """Draw the boxes over every image: PNG files named after the images, in their folders."""
    selected = select_boxes(predictions, postprocess)
    for found in tqdm(selected, "draw", len(predictions), unit="picture"):
        image = dataset[found.image].picture()
        path = folder / f"{predictions.ids[found.image]}.png"
        save_picture(path, draw_predictions(image, predictions, found))


class _Step(NamedTuple):
    """What is done at once.

    Attributes:
        name: for the user.
        members: the networks that predict together.
        postprocess: how their boxes are chosen.
        owner, folder: of the results, where these are no split's.
    """

    name: str
    members: list[Member]
    postprocess: Postprocess
    owner: Run
    folder: Path


def _plan(run: Run, experiment: Experiment, arguments: argparse.Namespace) -> Iterator[_Step]:
    """Settle what will be done, so that a mistake is found before the first image is read."""
    source = "test" if arguments.input is None else arguments.input.resolve().stem
    if asks_for_ensemble(arguments):
        members = choose_members(run, experiment, arguments)
        postprocess = settle_postprocess(arguments, members)
        owner = ensemble_run([member.run for member in members])
        folder = arguments.out or owner.output_dir / owner.common_name / source
        yield _Step(f"{len(members)} members", members, postprocess, owner, folder)
        return
    folder = arguments.out or run.dir / "inputs" / source
    experiment = as_trained(run.at(arguments.weights_dir), experiment)
    for epoch in epochs_to_use(run, arguments):
        members = [Member(run=run, experiment=experiment, epoch=epoch)]
        postprocess = settle_postprocess(arguments, members)
        yield _Step(f"epoch {epoch}", members, postprocess, run, folder / f"{epoch:03}")


def _check_results(step: _Step, images: Path, arguments: argparse.Namespace) -> None:
    """Make sure before the work that a folder can be filled, without loss of others' results.

    Raises:
        InputError: the folder cannot be filled, or holds such results.
    """
    check_place(step.folder)
    if arguments.overwrite:
        return
    check_owner(step.owner, step.folder)
    content = read_description(step.folder / "experiment.json")
    replace = "--overwrite replaces it, --out takes another folder"
    for name, ours in (("images", str(images)), ("fold", common_fold(step.members))):
        if content.get(name, ours) != ours:
            raise InputError(
                f"{step.folder}: holds what was found with {name} {content[name]}; {replace}"
            )
    header = describe_members(step.members, step.postprocess, hflip=arguments.tta == "hflip")
    networks = describe_networks(header)
    if any(content.get(name, ours) != ours for name, ours in networks.items()):
        raise InputError(f"{step.folder}: holds what other networks found; {replace}")


def _write_experiment(
    folder: Path, owner: Run, predictions: Predictions, postprocess: Postprocess, images: Path
) -> None:
    """Write experiment.json: which networks looked at which images, and how."""
    content = {
        "model": owner.model,
        "tag": owner.tag,
        "fold": predictions.header["fold"],
        **describe_networks(predictions.header),
        "postprocess": asdict(postprocess),
        "images": images,
    }
    write_description(folder / "experiment.json", content)


def _make_inference(arguments: argparse.Namespace, processes: Processes = ALONE) -> Inference:
    return Inference(
        acceleration=choose_acceleration(arguments),
        processes=processes,
        n_workers=arguments.num_workers,
        weights_dir=arguments.weights_dir,
        debug=arguments.debug,
        overwrite=arguments.overwrite,
        cache_dir=arguments.cache_dir,
    )


def _images_place(arguments: argparse.Namespace) -> Path:
    """Return where the images to predict lie."""
    if arguments.input is not None:
        return arguments.input.resolve()
    split = "test" if arguments.split == "test" else "train"  # among which a fold's are
    return DataFolder(arguments.data_dir).images_dir(split).resolve()


def _files_to_predict(arguments: argparse.Namespace) -> list[ImageFile]:
    """List the files of --input, without the unreadable ones if asked, or the test images."""
    if arguments.input is None:
        return find_challenge_images(_images_place(arguments))
    files = find_image_files(arguments.input)
    if not arguments.skip_unreadable:
        return files
    files, unreadable = split_unreadable(files, arguments.num_workers or 1)
    for file in unreadable:
        print(f"skipped: {file.cause}", file=sys.stderr)
    if not files:
        raise InputError(f"{arguments.input}: none of its {len(unreadable)} files is readable")
    return files


def _sample_path(arguments: argparse.Namespace) -> Path | None:
    """Find the sample submission, whose order the test images' rows follow."""
    path = DataFolder(arguments.data_dir).sample_submission_path
    return path if arguments.split == "test" and path.exists() else None


def _pick_images(records: Sequence[Record], n_images: int) -> list[Record]:
    """Take two images with boxes for each one without, as far as there are."""
    with_boxes = [record for record in records if len(record.boxes_xywh)]
    without = [record for record in records if not len(record.boxes_xywh)]
    n_without = max(n_images // 3, n_images - len(with_boxes))
    return with_boxes[: n_images - min(n_without, len(without))] + without[:n_without]
