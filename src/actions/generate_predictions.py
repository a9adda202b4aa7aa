"""Predict images by trained networks: settle what is to be done, predict or load, write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from src.actions.device import choose_acceleration
from src.actions.flags import Flags
from src.actions.resolve import (
    settle_networks,
    settle_postprocess,
)
from src.datasets.data_folder import DataFolder
from src.datasets.loaders import load_labelled_images
from src.experiments.experiment_file import sample_options
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
    place_in_folder,
    place_in_run,
    write_boxes,
    write_prediction_experiment,
    write_submission,
)
from src.prediction.postprocess import ChosenBoxes, choose_boxes
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess
from src.prediction.provenance import NetworkSet
from src.system.distributed import Processes, joined_processes
from src.system.errors import InputError
from src.system.files import check_place
from src.visualizations.overlays import draw_predictions, save_picture


@dataclass(frozen=True, kw_only=True)
class Task:
    """One prediction: by which networks, how its boxes are chosen, and where they go.

    Attributes:
        name: for the user.
    """

    name: str
    networks: NetworkSet
    postprocess: Postprocess
    place: Place


def generate_predictions(flags: Flags) -> None:
    """Predict the validation fold, the test images or other files, and write what was found."""
    with joined_processes(flags.device) as processes:
        _predict_and_write(flags, processes)


def _predict_and_write(flags: Flags, processes: Processes) -> None:
    """Settle all tasks, then predict or load and write one after the other.

    Args:
        processes: share the images; the first one alone writes.
    """
    inference = Inference(
        acceleration=choose_acceleration(flags),
        processes=processes,
        n_workers=flags.num_workers,
        weights_dir=flags.weights_dir,
        overwrite=flags.overwrite,
    )
    images_place = _images_place(flags)
    tasks = list(_settle_tasks(flags))
    for task in tasks:
        _check_task(task, images_place, flags)
        if not task.place.is_run:
            inference.find_weights(task.networks)
    images = _find_images(tasks[0].networks, flags)
    for task in tasks:
        predictions = inference.find_or_predict(task.place, images, task.networks, task.postprocess)
        if processes.is_first:
            chosen = choose_boxes(predictions, task.postprocess)
            _write(task, images, predictions, chosen)
            if flags.overlays:
                _draw(task, images, predictions, chosen)
            _tell(task, predictions, chosen)


def _settle_tasks(flags: Flags) -> Iterator[Task]:
    """Settle all that will be done, so that a mistake is found before the first image is read."""
    together = flags.asks_for_ensemble
    source = "test" if flags.input is None else flags.input.resolve().stem
    for networks in settle_networks(flags):
        owner, epoch = networks.run, networks.last_epoch
        if not flags.fills_folder:
            place = place_in_run(networks, flags.split)
        elif together:
            folder = flags.out or owner.output_dir / owner.common_name / source
            place = place_in_folder(folder)
        else:
            place = place_in_folder((flags.out or owner.dir / "inputs" / source) / f"{epoch:03}")
        yield Task(
            name=f"{len(networks.members)} members" if together else f"epoch {epoch}",
            networks=networks,
            postprocess=settle_postprocess(flags, networks),
            place=place,
        )


def _check_task(task: Task, images_place: Path, flags: Flags) -> None:
    """Make sure before the work that the place can be filled, without loss of others' results.

    Raises:
        InputError: it cannot be filled, or holds results of other images, networks or runs.
    """
    networks, place = task.networks, task.place
    check_place(place.folder)
    if place.is_run:
        check_owner(networks.run)
        if flags.split == "valid" and networks.fold is None:
            raise InputError("--split valid takes networks of one fold, which have not seen it; "
                             "--split test and --input take all")  # fmt: skip
        return
    if flags.overwrite:
        return
    check_owner(networks.run, place.folder)
    content = read_description(place.experiment)
    replace = "--overwrite replaces it, --out takes another folder"
    for name, ours in (("images", str(images_place)), ("fold", networks.fold)):
        if content.get(name, ours) != ours:
            raise InputError(
                f"{place.folder}: holds what was found with {name} {content[name]}; {replace}"
            )
    described = describe_networks(networks.provenance(task.postprocess))
    if any(content.get(name, ours) != ours for name, ours in described.items()):
        raise InputError(f"{place.folder}: holds what other networks found; {replace}")


def _images_place(flags: Flags) -> Path:
    """Return where the images to predict lie."""
    if flags.input is not None:
        return flags.input.resolve()
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
        return test_image_set(flags.data_dir)
    assert networks.fold is not None  # checked with the tasks
    images = load_labelled_images(
        flags.data_dir, networks.fold, debug=flags.debug, cache_dir=flags.cache_dir
    )
    return labelled_image_set(images, images.valid)


def _write(task: Task, images: ImageSet, predictions: Predictions, chosen: ChosenBoxes) -> None:
    """Write the files of a task; of a run's own those that are not there yet."""
    place = task.place
    if not place.is_run or task.networks.combines or not place.experiment.exists():
        write_prediction_experiment(place, predictions.provenance, task.postprocess, images.place)
    if place.boxes is not None:
        write_boxes(place.boxes, predictions, chosen, place.predictions)
    if images.are_patients:
        write_submission(
            place.submission,
            predictions,
            chosen,
            place.predictions,
            sample_path=images.sample_path,
        )


def _draw(task: Task, images: ImageSet, predictions: Predictions, chosen: ChosenBoxes) -> None:
    """Draw the boxes over every image: PNG files named after the images, in their folders."""
    dataset = images.dataset(sample_options(task.networks.experiment))
    for image in tqdm(range(len(images)), "draw", unit="picture"):
        picture = draw_predictions(dataset[image].picture(), predictions, chosen, image)
        save_picture(task.place.overlays / f"{images.ids[image]}.png", picture)


def _tell(task: Task, predictions: Predictions, chosen: ChosenBoxes) -> None:
    n_with_boxes = int((chosen.boxes.counts() > 0).sum())
    print(
        f"{task.name}: {len(predictions)} images, {n_with_boxes} with boxes at threshold "
        f"{task.postprocess.threshold:g}"
    )
    place = task.place
    print(*([place.predictions, place.submission] if place.is_run else [place.folder]), sep="\n")
