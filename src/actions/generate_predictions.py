"""Predict the validation fold, the test images or other files by trained networks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from src.actions.flags import Flags
from src.actions.resolve import (
    choose_acceleration,
    choose_experiment,
    choose_members,
    choose_run,
    epochs_to_use,
    settle_postprocess,
)
from src.datasets.data_folder import DataFolder
from src.datasets.test_dataset import TestDataset
from src.experiments.experiment_file import sample_options, write_description
from src.experiments.runs import Run, check_owner, ensemble_run, read_description
from src.experiments.table import Experiment
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
from src.system.distributed import ALONE, Processes, joined_processes
from src.system.errors import InputError
from src.system.files import check_place
from src.visualizations.overlays import draw_predictions, save_picture


def generate_predictions(flags: Flags) -> None:
    """Predict the validation fold, the test images or other files; write .npz and CSV."""
    run, experiment = choose_run(flags), choose_experiment(flags)
    predict = predict_files if flags.fills_folder else predict_split
    with joined_processes(flags.device) as processes:
        predict(run, experiment, flags, processes)


def predict_split(run: Run, experiment: Experiment, flags: Flags, processes: Processes) -> None:
    """Predict the validation fold or the test images, each epoch by itself.

    An ensemble can predict the validation fold as well, if all its networks have left it out.

    Args:
        processes: share the images; the first one alone writes.
    """
    inference = make_inference(flags, processes)
    sample_path, hflip = _sample_path(flags), flags.tta == "hflip"
    for step in _plan(run, experiment, flags):
        owner = run_of(step.members, hflip=hflip)
        check_owner(owner)
        check_place(owner.dir)
        if common_fold(step.members) is None:
            raise InputError("--split valid takes networks of one fold, which have not seen it; "
                             "--split test and --input take all")  # fmt: skip
        predictions, path = inference.predict_split(
            flags.split, flags.data_dir, step.members, step.postprocess, hflip=hflip
        )
        if not processes.is_first:
            continue
        if "ensemble" in predictions.header or not owner.experiment_path.exists():
            images = _images_place(flags)
            _write_experiment(owner.dir, owner, predictions, step.postprocess, images)
        submission = owner.submission_path(flags.split, last_epoch(step.members))
        n_with_boxes = save_submission(
            submission, predictions, path, step.postprocess, sample_path=sample_path
        )
        print(
            f"{step.name}: {len(predictions)} images, {n_with_boxes} with boxes at threshold "
            f"{step.postprocess.threshold:g}\n{path}\n{submission}"
        )


def predict_files(run: Run, experiment: Experiment, flags: Flags, processes: Processes) -> None:
    """Predict the files of --input or the test images, by an ensemble or each epoch by itself.

    Args:
        processes: share the images; the first one alone writes.
    """
    inference = make_inference(flags, processes)
    images = _images_place(flags)
    plan = list(_plan(run, experiment, flags))
    for step in plan:
        _check_results(step, images, flags)
        inference.find_weights(step.members)
    files = _files_to_predict(flags)
    for step in plan:
        hflip = flags.tta == "hflip"
        predictions = inference.predict_files(files, step.members, step.postprocess, hflip=hflip)
        if not processes.is_first:
            continue
        _write_experiment(step.folder, step.owner, predictions, step.postprocess, images)
        write_results(
            step.folder, files, predictions, step.postprocess, sample_path=_sample_path(flags)
        )
        if flags.overlays:
            dataset = TestDataset(files, sample_options(step.members[0].experiment))
            draw_files(step.folder / "overlays", dataset, predictions, step.postprocess)
        print(f"{step.name}: {len(files)} images at threshold {step.postprocess.threshold:g}")
        print(step.folder)


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


def _plan(run: Run, experiment: Experiment, flags: Flags) -> Iterator[_Step]:
    """Settle what will be done, so that a mistake is found before the first image is read."""
    source = "test" if flags.input is None else flags.input.resolve().stem
    if flags.asks_for_ensemble:
        members = choose_members(run, experiment, flags)
        postprocess = settle_postprocess(flags, members)
        owner = ensemble_run([member.run for member in members])
        folder = flags.out or owner.output_dir / owner.common_name / source
        yield _Step(f"{len(members)} members", members, postprocess, owner, folder)
        return
    folder = flags.out or run.dir / "inputs" / source
    for epoch in epochs_to_use(run, flags):
        members = [Member(run=run, experiment=experiment, epoch=epoch)]
        postprocess = settle_postprocess(flags, members)
        yield _Step(f"epoch {epoch}", members, postprocess, run, folder / f"{epoch:03}")


def _check_results(step: _Step, images: Path, flags: Flags) -> None:
    """Make sure before the work that a folder can be filled, without loss of others' results.

    Raises:
        InputError: the folder cannot be filled, or holds such results.
    """
    check_place(step.folder)
    if flags.overwrite:
        return
    check_owner(step.owner, step.folder)
    content = read_description(step.folder / "experiment.json")
    replace = "--overwrite replaces it, --out takes another folder"
    for name, ours in (("images", str(images)), ("fold", common_fold(step.members))):
        if content.get(name, ours) != ours:
            raise InputError(
                f"{step.folder}: holds what was found with {name} {content[name]}; {replace}"
            )
    header = describe_members(step.members, step.postprocess, hflip=flags.tta == "hflip")
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


def make_inference(flags: Flags, processes: Processes = ALONE) -> Inference:
    return Inference(
        acceleration=choose_acceleration(flags),
        processes=processes,
        n_workers=flags.num_workers,
        weights_dir=flags.weights_dir,
        debug=flags.debug,
        overwrite=flags.overwrite,
        cache_dir=flags.cache_dir,
    )


def _images_place(flags: Flags) -> Path:
    """Return where the images to predict lie."""
    if flags.input is not None:
        return flags.input.resolve()
    split = "test" if flags.split == "test" else "train"  # among which a fold's are
    return DataFolder(flags.data_dir).images_dir(split).resolve()


def _files_to_predict(flags: Flags) -> list[ImageFile]:
    """List the files of --input, without the unreadable ones if asked, or the test images."""
    if flags.input is None:
        return find_challenge_images(_images_place(flags))
    files = find_image_files(flags.input)
    if not flags.skip_unreadable:
        return files
    files, unreadable = split_unreadable(files, flags.num_workers or 1)
    for file in unreadable:
        print(f"skipped: {file.cause}", file=sys.stderr)
    if not files:
        raise InputError(f"{flags.input}: none of its {len(unreadable)} files is readable")
    return files


def _sample_path(flags: Flags) -> Path | None:
    """Find the sample submission, whose order the test images' rows follow."""
    path = DataFolder(flags.data_dir).sample_submission_path
    return path if flags.split == "test" and path.exists() else None
