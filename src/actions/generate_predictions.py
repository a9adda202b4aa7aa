"""Predict images by trained networks: settle what is to be done, predict or load, write."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.actions.device import choose_acceleration
from src.actions.flags import Flags
from src.actions.networks import settle_boxes, settle_networks
from src.challenge.submission_check import check_ids
from src.datasets.data_folder import DataFolder
from src.datasets.loaders import load_labelled_images
from src.datasets.tables import read_sample_ids
from src.experiments.experiment_file import WeightsFile
from src.experiments.runs import check_owner, read_description
from src.prediction.image_sets import (
    ImageSet,
    labelled_image_set,
    own_image_set,
    test_image_set,
)
from src.prediction.inference import Inference
from src.prediction.outputs import (
    Place,
    describe_networks,
    describe_weights,
    made_by_path,
    place_in_folder,
    place_in_run,
    write_boxes,
    write_prediction_experiment,
    write_submission,
)
from src.prediction.postprocess import ChosenBoxes, choose_boxes
from src.prediction.predictions import Predictions, PredictionsError, load_provenance
from src.prediction.presets import Postprocess
from src.prediction.provenance import NetworkSet
from src.system.distributed import Processes, joined_processes
from src.system.errors import InputError
from src.system.files import check_file_place, check_place, real_path
from src.system.records import MAX_CAUSE, cut_text, show_value
from src.visualizations.overlays import draw_predictions, save_picture
from src.visualizations.picture_names import picture_names

SCORE_TABLES = ("scores.csv", "sweep.npz", "sweep.csv", "numbers.csv", "groups.csv")
SHARED_DIR = "by_weights"  # below the folder of runs: what files of weights have found


@dataclass(frozen=True, kw_only=True)
class Task:
    """One prediction: by which networks, how its boxes are chosen, and where they go.

    Attributes:
        weights: the files of weights that were named instead of runs.
        name: for the user.
    """

    weights: tuple[WeightsFile, ...]
    name: str
    networks: NetworkSet
    postprocess: Postprocess
    place: Place


def generate_predictions(flags: Flags, *, downloads_dir: Path) -> None:
    """Predict the validation fold, the test images or other files, and write what was found.

    Args:
        downloads_dir: see `settle_networks`.
    """
    with joined_processes(flags.device) as processes:
        _predict_and_write(flags, processes, downloads_dir)


def _predict_and_write(flags: Flags, processes: Processes, downloads_dir: Path) -> None:
    """Settle all tasks, then predict or load and write one after the other.

    Args:
        processes: share the images; the first one alone writes.
    """
    inference = Inference(
        acceleration=choose_acceleration(flags),
        processes=processes,
        n_workers=flags.num_workers,
        overwrite=flags.overwrite,
        weak=flags.weak,
    )
    images_place = _images_place(flags)
    tasks = list(_settle_tasks(flags, downloads_dir))
    for task in tasks:
        _check_task(task, images_place, flags)
        if not inference.uses_saved(task.place):
            task.networks.require_weights()
    images = _find_images(tasks[0].networks, flags)
    _check_names(images)
    saved = [  # all of them first: one that does not fit ends the command before the work
        inference.find_saved(task.place, images, task.networks, task.postprocess) for task in tasks
    ]
    for task, found in zip(tasks, saved, strict=True):
        predictions = found
        outdates_scores = processes.is_first and flags.overwrite and _replaces_others(task, images)
        if predictions is None:
            predictions = inference.predict(images, task.networks, task.postprocess)
            if processes.is_first:
                predictions.save(task.place.predictions)
        if processes.is_first:
            chosen = choose_boxes(predictions, task.postprocess)
            _write(task, images, predictions, chosen)
            if outdates_scores:
                _remove_replaced(task)
            if flags.overlays:
                _draw(task, images, predictions, chosen)
            _tell(task, predictions, chosen, predicted_now=found is None)


def _settle_tasks(flags: Flags, downloads_dir: Path) -> Iterator[Task]:
    """Settle all that will be done, so that a mistake is found before the first image is read."""
    together = flags.asks_for_ensemble
    source = "test" if flags.input is None else real_path(flags.input).stem
    for networks in settle_networks(flags, downloads_dir=downloads_dir):
        owner, epoch = networks.run, networks.last_epoch
        if flags.weights:
            owner = owner.at(owner.output_dir / SHARED_DIR)  # no run's: another may have its name
        if not flags.fills_folder:
            place = place_in_run(networks, flags.split)
        elif together:
            folder = flags.out or owner.output_dir / owner.common_name / source
            place = place_in_folder(folder)
        else:
            place = place_in_folder((flags.out or owner.dir / "inputs" / source) / f"{epoch:03}")
        yield Task(
            weights=tuple(WeightsFile.at(m.path) for m in networks.members if flags.weights),
            name=f"{len(networks.members)} members" if together else f"epoch {epoch}",
            networks=networks,
            postprocess=settle_boxes(flags, networks),
            place=place,
        )


def _check_task(task: Task, images_place: Path, flags: Flags) -> None:
    """Make sure before the work that the place can be filled, without loss of others' results.

    Raises:
        InputError: it cannot be filled, or holds results of other images, networks or runs.
    """
    networks, place = task.networks, task.place
    for path in place.files:
        check_file_place(path)
    if flags.overlays:
        check_place(place.overlays)
    if place.is_run:
        check_owner(networks.run)
        if flags.split == "valid" and networks.fold is None:
            raise InputError("--split valid takes networks of one fold, which have not seen it; "
                             "--split test and --input take all")  # fmt: skip
        if networks.combines and not flags.overwrite:
            _check_ensemble(task)
    elif not flags.overwrite:
        _check_folder(task, images_place)


def _check_folder(task: Task, images_place: Path) -> None:
    """Make sure that a folder holds nothing that other networks found, or in other images.

    Raises:
        InputError: it does.
    """
    networks, place = task.networks, task.place
    check_owner(networks.run, place.folder)
    content = read_description(place.experiment)
    replace = "--overwrite replaces it, --out takes another folder"
    for name, ours in (("images", str(images_place)), ("fold", networks.fold)):
        its = content.get(name, ours)
        if its != ours:
            shown = cut_text(its, MAX_CAUSE) if isinstance(its, str) else show_value(its)
            raise InputError(f"{place.folder}: holds what was found with {name} {shown}; {replace}")
    provenance = networks.provenance(task.postprocess)
    described = describe_networks(provenance)
    others = any(content.get(name, ours) != ours for name, ours in described.items())
    others = others or (
        "members" in content and _digests(content) != _digests(describe_weights(task.weights))
    )
    if place.predictions.exists():  # they tell how the networks were combined, too
        others = others or not load_provenance(place.predictions).is_same(provenance)
    if others:
        raise InputError(f"{place.folder}: holds what other networks found; {replace}")


def _digests(content: dict[str, Any]) -> list[str]:
    """Return the SHA-256 of the files of weights that an experiment.json names."""
    files = content.get("weights", [])
    return [file["sha256"] for file in files if isinstance(file, dict) and "sha256" in file]


def _check_ensemble(task: Task) -> None:
    """Make sure that an ensemble's folder holds no predictions of another one.

    Predictions are named by the last epoch of their networks: those of two ensembles would look
    like those of two epochs of one.

    Raises:
        InputError: it does.
    """
    run = task.networks.run
    for path in map(run.predictions_path, run.epochs_with_predictions()):
        if not load_provenance(path).is_same(task.networks.provenance(task.postprocess)):
            raise InputError(
                f"{path}: is of another ensemble; --overwrite makes it again by these networks"
            )


def _check_names(images: ImageSet) -> None:
    """Make sure before the work that a submission can name the images, and names the right ones.

    Where images are not the challenge's it is left out instead.

    Raises:
        InputError: it cannot, or the sample submission is wrong or lists other patients.
    """
    fault = images.submission_fault
    if fault is not None and images.named_by == "patient":
        raise InputError(f"{images.place}: {fault}")
    if fault is not None and all(images.patient_ids):  # all are DICOM files, as a submission needs
        warnings.warn(f"{images.place}: makes no submission.csv: {fault}", stacklevel=2)
    if images.sample_path is not None:
        check_ids(images.patient_ids, read_sample_ids(images.sample_path), images.sample_path)


def _images_place(flags: Flags) -> Path:
    """Return where the images to predict lie."""
    if flags.input is not None:
        return real_path(flags.input)
    split = "test" if flags.split == "test" else "train"  # among which a fold's are
    return DataFolder(flags.data_dir).images_dir(split).resolve()


def _find_images(networks: NetworkSet, flags: Flags) -> ImageSet:
    """Find the images of --input or of the split."""
    if flags.input is not None:
        return own_image_set(
            flags.input,
            skip_unreadable=flags.skip_unreadable,
            n_workers=flags.num_workers,
        )
    if flags.split == "test":
        return test_image_set(
            flags.data_dir,
            skip_unreadable=flags.skip_unreadable,
            n_workers=flags.num_workers,
        )
    assert networks.fold is not None  # checked with the tasks
    images = load_labelled_images(
        flags.data_dir, networks.fold, debug=flags.debug, cache_dir=flags.cache_dir
    )
    return labelled_image_set(images, images.valid)


def _write(task: Task, images: ImageSet, predictions: Predictions, chosen: ChosenBoxes) -> None:
    """Write the files of a task; of a run's own those that are not there yet."""
    place = task.place
    if not place.is_run or task.networks.combines or not place.experiment.exists():
        write_prediction_experiment(
            place, predictions.provenance, task.postprocess, images.place, task.weights
        )
    if place.boxes is not None:
        write_boxes(place.boxes, predictions, chosen, place.predictions, files=images.files)
    if images.submission_fault is None:
        write_submission(
            place.submission,
            predictions,
            chosen,
            place.predictions,
            sample_path=images.sample_path,
        )
    elif made_by_path(place.submission).exists():  # ours, of images that lay there before
        place.submission.unlink(missing_ok=True)
        made_by_path(place.submission).unlink()


def _draw(task: Task, images: ImageSet, predictions: Predictions, chosen: ChosenBoxes) -> None:
    """Draw the boxes over every image: PNG files named after the images, in their folders."""
    names = picture_names(images.files)
    for image, name in enumerate(tqdm(names, "draw", unit="picture")):
        picture = draw_predictions(images.read(image), predictions, chosen, image)
        save_picture(task.place.overlays / name, picture)


def _replaces_others(task: Task, images: ImageSet) -> bool:
    """Say whether a run's folder holds scores of other networks' boxes, or against other labels."""
    networks, path = task.networks, task.place.predictions
    if networks.combines or not task.place.is_run:
        return task.place.is_run
    if path != networks.run.predictions_path(networks.last_epoch) or not path.exists():
        return False
    try:
        saved = load_provenance(path)
    except PredictionsError:
        return True
    is_same = saved.is_same(networks.provenance(task.postprocess))
    return not is_same or saved.images != images.fingerprint


def _remove_replaced(task: Task) -> None:
    """Leave nothing of other ensembles in the folder, nor scores of what was replaced."""
    run = task.networks.run
    replaced = [run.scores_path, *(run.dir / name for name in SCORE_TABLES)]
    for epoch in run.epochs_with_predictions() if task.networks.combines else []:
        if epoch != task.networks.last_epoch:
            submission = run.submission_path("valid", epoch)
            replaced += [run.predictions_path(epoch), submission, made_by_path(submission)]
    for path in replaced:
        path.unlink(missing_ok=True)


def _tell(
    task: Task, predictions: Predictions, chosen: ChosenBoxes, *, predicted_now: bool
) -> None:
    n_with_boxes = int((chosen.boxes.counts() > 0).sum())
    source = "" if predicted_now else ", as they were predicted before (--overwrite predicts again)"
    print(
        f"{task.name}: {len(predictions)} images, {n_with_boxes} with boxes at threshold "
        f"{task.postprocess.threshold:g}{source}"
    )
    place = task.place
    print(*([place.predictions, place.submission] if place.is_run else [place.folder]), sep="\n")
