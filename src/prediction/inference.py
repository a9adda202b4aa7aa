"""Trained networks over images: the validation fold, the test images, anybody's own files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from src.datasets.data_folder import DataFolder
from src.datasets.detection_dataset import Sample, ValidationDataset
from src.datasets.loaders import load_labelled_images, unlabelled_loader
from src.datasets.test_dataset import TestDataset
from src.experiments.checkpoints import load_checkpoint
from src.experiments.experiment_file import sample_options
from src.experiments.networks import checkpoint_path, load_network
from src.prediction.predictions import Predictions, join_predictions, load_predictions, take_images
from src.prediction.presets import Postprocess
from src.prediction.provenance import (
    Member,
    describe_members,
    last_epoch,
    run_of,
)
from src.radiographs.dicom import DicomError
from src.radiographs.image_files import ImageFile, PictureError, find_challenge_images
from src.retinanet.acceleration import Acceleration
from src.retinanet.candidates import MIN_SCORE, find_candidates
from src.retinanet.ensemble import Ensemble
from src.retinanet.model import RetinaNet
from src.structures import Batch, Detections
from src.system.distributed import ALONE, Processes
from src.system.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Inference:
    """What it takes to predict, beside networks and images.

    Attributes:
        acceleration: where and how the networks run.
        processes: that share the images.
        n_workers: processes that read images ahead; None chooses.
        weights_dir: the folder of runs that holds the checkpoints; None takes the runs' own.
        debug: a few images of the validation fold only.
        overwrite: make predictions again that are saved already.
        cache_dir: read labelled images out of a cache there; None reads their files.
    """

    acceleration: Acceleration
    processes: Processes = ALONE
    n_workers: int | None = None
    weights_dir: Path | None = None
    debug: bool = False
    overwrite: bool = False
    cache_dir: Path | None = None

    def predict(
        self,
        dataset: Dataset[Sample],
        members: Sequence[Member],
        postprocess: Postprocess,
        *,
        hflip: bool = False,
    ) -> Predictions:
        """Predict every image of a data set by one network or by several at once.

        Args:
            members: networks that `members.check_members` let through.
            postprocess: how several combine their sizes.
            hflip: show every network the mirrored image as well.

        Raises:
            InputError: the GPU's memory is too small.
        """
        ensemble = Ensemble(
            self.load_networks(members),
            weights=[member.weight for member in members],
            size_rule=postprocess.size_rule,
            k=postprocess.k or 0.0,
            hflip=hflip,
        )
        batch_size = min(member.experiment.batch_size for member in members)
        loader = unlabelled_loader(
            dataset,
            batch_size=batch_size,
            n_workers=self.n_workers,
            device=self.acceleration.device,
            share=(self.processes.rank, self.processes.count),
        )
        header = describe_members(members, postprocess, hflip=hflip)
        try:
            self.acceleration.place_for_inference(ensemble)
            return predict(
                ensemble,
                loader,
                acceleration=self.acceleration,
                header=header,
                processes=self.processes,
            )
        except torch.OutOfMemoryError as error:
            raise self.acceleration.out_of_memory(
                batch_size, members[0].experiment.img_size, "a smaller --batch-size needs less"
            ) from error

    def predict_files(
        self,
        files: Sequence[ImageFile],
        members: Sequence[Member],
        postprocess: Postprocess,
        *,
        hflip: bool = False,
    ) -> Predictions:
        """Predict image files, wherever they lie."""
        dataset = TestDataset(files, sample_options(members[0].experiment))
        try:
            return self.predict(dataset, members, postprocess, hflip=hflip)
        except (DicomError, PictureError) as error:
            raise InputError(f"{error}; --input with --skip-unreadable leaves it out") from error

    def predict_split(
        self,
        split: str,
        data_dir: Path,
        members: Sequence[Member],
        postprocess: Postprocess,
        *,
        hflip: bool = False,
    ) -> tuple[Predictions, Path]:
        """Load the predictions of a split by one network or an ensemble, or make and save them.

        Args:
            split: "valid", the fold that all members have left out, or "test".
            data_dir: the challenge's unpacked archive.

        Returns:
            The predictions and their file.

        Raises:
            InputError: predictions are there, but of other images or perhaps of other networks.
        """
        dataset: Dataset[Sample]
        run, options = run_of(members, hflip=hflip), sample_options(members[0].experiment)
        epoch = last_epoch(members)
        if split == "test":
            path = run.test_predictions_path(epoch)
            files = find_challenge_images(DataFolder(data_dir).images_dir("test"))
            ids = [file.id for file in files]
            dataset = TestDataset(files, options)
        else:
            path = run.predictions_path(epoch)
            images = load_labelled_images(
                data_dir, run.fold, debug=self.debug, cache_dir=self.cache_dir
            )
            ids = [record.patient_id for record in images.valid]
            dataset = ValidationDataset(images.valid, images.source, options)
        if path.exists() and not self.overwrite:
            if self.weights_dir is not None:
                raise InputError(f"{path}: is there already; --overwrite makes it again")
            predictions = load_predictions(path)
            if predictions.ids.tolist() != ids:
                raise InputError(f"{path}: is of other images; --overwrite makes it again")
            header = describe_members(members, postprocess, hflip=hflip)
            if predictions.header.get("ensemble") != header.get("ensemble"):
                raise InputError(f"{path}: is of another ensemble; --overwrite makes it again")
            return predictions, path
        predictions = self.predict(dataset, members, postprocess, hflip=hflip)
        if self.processes.is_first:
            predictions.save(path)
        return predictions, path

    def find_weights(self, members: Sequence[Member]) -> list[Path]:
        """Find the members' checkpoints: quickly, before the first is loaded or an image is read.

        Raises:
            InputError: one is missing.
        """
        return [checkpoint_path(m.run, m.epoch, self.weights_dir) for m in members]

    def load_networks(self, members: Sequence[Member]) -> list[RetinaNet]:
        """Build the members' networks with their weights.

        Raises:
            InputError: a checkpoint is missing, broken or of another experiment.
        """
        return [
            load_network(member.experiment, load_checkpoint(path, member.run.model), path)
            for member, path in zip(members, self.find_weights(members), strict=True)
        ]


def predict(
    model: RetinaNet | Ensemble,
    batches: Iterable[Batch],
    *,
    acceleration: Acceleration,
    header: dict[str, Any],
    processes: Processes = ALONE,
) -> Predictions:
    """Find candidates in every image; labels, where there are any, are passed on as the truth.

    Args:
        batches: of this process: every `processes.count`-th image.

    Returns:
        Predictions of all processes.
    """
    collected = PredictionCollector(header)
    model.eval()
    with torch.inference_mode(), progress_bar(batches, "predict", processes.is_first) as bar:
        for host_batch in bar:
            images = host_batch.to(acceleration.device).images
            with acceleration.arithmetic():
                outputs = model(images, min_score=MIN_SCORE)
            found = find_candidates(outputs, model.anchors(images), host_batch.image_size)
            collected.add(host_batch, found)
    return gather_predictions(collected.finish(), processes)


def gather_predictions(own: Predictions, processes: Processes) -> Predictions:
    """Put together what the processes found, in the order of the images."""
    if processes.count == 1:
        return own
    parts = processes.gather(own)
    starts = np.cumsum([0, *(len(part) for part in parts)])
    n_images = int(starts[-1])
    order = [int(starts[i % len(parts)]) + i // len(parts) for i in range(n_images)]
    return take_images(join_predictions(parts), order)


class PredictionCollector:
    """Joins the detections of batches into Predictions."""

    def __init__(self, header: dict[str, Any]) -> None:
        self.header = header
        self.batches: list[Batch] = []
        self.counts: list[int] = []  # of boxes, in each image
        self.boxes_xyxy: list[Tensor] = []  # of a batch's images together, as the next two
        self.scores: list[Tensor] = []
        self.class_probs: list[Tensor] = []

    def add(self, batch: Batch, found: list[Detections]) -> None:
        self.batches.append(
            Batch(torch.empty(0), batch.targets, batch.ids, batch.file_sizes)  # drop the pixels
        )
        self.counts += [len(image.scores) for image in found]
        self.boxes_xyxy.append(torch.cat([image.boxes_xyxy for image in found]).cpu())
        self.scores.append(torch.cat([image.scores for image in found]).cpu())
        self.class_probs.append(torch.stack([image.class_probs for image in found]).cpu())

    def finish(self) -> Predictions:
        targets = [target for batch in self.batches for target in batch.targets]
        return Predictions(
            ids=np.array([patient for batch in self.batches for patient in batch.ids], dtype=str),
            image_sizes=np.array(
                [size for batch in self.batches for size in batch.file_sizes], dtype=np.int64
            ).reshape(-1, 2),
            class_probs=_join(self.class_probs, (0, 3)),
            offsets=_offsets(self.counts),
            boxes_xyxy=_join(self.boxes_xyxy, (0, 4)),
            scores=_join(self.scores, (0,)),
            true_offsets=_offsets([len(target.boxes_xyxy) for target in targets]),
            true_boxes_xyxy=_join([target.boxes_xyxy for target in targets], (0, 4)),
            true_categories=np.array([target.category for target in targets], dtype=np.int64),
            header=self.header,
        )


def _join(parts: list[Tensor], empty_shape: tuple[int, ...]) -> np.ndarray:
    return torch.cat([torch.empty(empty_shape), *parts]).numpy()


def _offsets(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


@contextmanager
def progress_bar(
    batches: Iterable[Batch],
    title: str,
    shown: bool,
    total: int | None = None,
    initial: int = 0,
) -> Iterator[tqdm[Batch]]:
    bar = tqdm(
        batches,
        title,
        total=total,
        initial=initial,
        unit="batch",
        dynamic_ncols=True,
        mininterval=0.5,
        disable=not shown,
    )
    try:
        yield bar
    finally:
        bar.close()
