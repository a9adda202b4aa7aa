"""Trained networks over images: the validation fold, the test images, anybody's own files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from src.acceleration import Acceleration
from src.checkpoints import Checkpoint, CheckpointError, load_checkpoint, load_weights
from src.datasets.annotations import DataFolder
from src.datasets.detection_dataset import Sample, ValidationDataset
from src.datasets.dicom import DicomError
from src.datasets.image_files import ImageFile, PictureError, find_challenge_images
from src.datasets.loaders import load_labelled_images, unlabelled_loader
from src.datasets.test_dataset import TestDataset
from src.distributed import ALONE, Processes
from src.engine import predict
from src.errors import InputError
from src.experiments import sample_options
from src.members import MUST_AGREE, Member, common_fold, last_epoch, prediction_header, run_of
from src.models import ModelInfo, build_empty_model
from src.predictions import Predictions, load_predictions
from src.presets import Postprocess
from src.retinanet.ensemble import Ensemble
from src.retinanet.model import RetinaNet
from src.runs import Run


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
        settings: Postprocess,
        *,
        hflip: bool = False,
    ) -> Predictions:
        """Predict every image of a data set by one network or by several at once.

        Args:
            members: networks that `members.check_members` let through.
            settings: how several combine their sizes.
            hflip: show every network the mirrored image as well.

        Raises:
            InputError: the GPU's memory is too small.
        """
        ensemble = Ensemble(
            self.load_networks(members),
            weights=[member.weight for member in members],
            size_rule=settings.size_rule,
            k=settings.k or 0.0,
            hflip=hflip,
        )
        batch_size = min(member.info.batch_size for member in members)
        loader = unlabelled_loader(
            dataset,
            batch_size=batch_size,
            n_workers=self.n_workers,
            device=self.acceleration.device,
            share=(self.processes.rank, self.processes.count),
        )
        header = describe_members(members, settings, hflip=hflip)
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
                batch_size, members[0].info.img_size, "a smaller --batch-size needs less"
            ) from error

    def predict_files(
        self,
        files: Sequence[ImageFile],
        members: Sequence[Member],
        settings: Postprocess,
        *,
        hflip: bool = False,
    ) -> Predictions:
        """Predict image files, wherever they lie."""
        dataset = TestDataset(files, sample_options(members[0].info))
        try:
            return self.predict(dataset, members, settings, hflip=hflip)
        except (DicomError, PictureError) as error:
            raise InputError(f"{error}; --input with --skip-unreadable leaves it out") from error

    def predict_split(
        self,
        split: str,
        data_dir: Path,
        members: Sequence[Member],
        settings: Postprocess,
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
        run, options = run_of(members, hflip=hflip), sample_options(members[0].info)
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
            header = describe_members(members, settings, hflip=hflip)
            if predictions.header.get("ensemble") != header.get("ensemble"):
                raise InputError(f"{path}: is of another ensemble; --overwrite makes it again")
            return predictions, path
        predictions = self.predict(dataset, members, settings, hflip=hflip)
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
            load_network(member.info, load_checkpoint(path, member.run.model), path)
            for member, path in zip(members, self.find_weights(members), strict=True)
        ]


def load_network(info: ModelInfo, checkpoint: Checkpoint, path: Path) -> RetinaNet:
    """Build the network of an experiment around a checkpoint's weights.

    No weights are drawn at random first, and those of the checkpoint are not copied.

    Raises:
        CheckpointError: the weights are of another network, or were trained on other inputs.
    """
    for name in MUST_AGREE:
        trained, ours = checkpoint.settings.get(name), getattr(info, name)
        if trained != ours:
            raise CheckpointError(f"{path}: was trained with {name} {trained}, not {ours}")
    model = build_empty_model(info)
    load_weights(model, checkpoint, path, assign=True)
    return model


def checkpoint_path(run: Run, epoch: int, weights_dir: Path | None) -> Path:
    """Find an epoch's weights in the run's folder, or in the one of its name elsewhere.

    Raises:
        InputError: they are not there.
    """
    source = run.at(weights_dir)
    path = source.checkpoint_path(epoch)
    if not path.is_file():
        saved = source.epochs_with_checkpoint()
        has = f"it has epochs {saved}" if saved else "--action train makes them"
        raise InputError(f"{path}: no such checkpoint; {has}")
    return path


def describe_members(
    members: Sequence[Member], settings: Postprocess, *, hflip: bool
) -> dict[str, Any]:
    """Say where predictions come from; of one network alone the same as after its training."""
    first, run = members[0], run_of(members, hflip=hflip)
    header = prediction_header(run, first.info, last_epoch(members))
    if run == first.run:
        return header
    total = sum(member.weight for member in members)
    described = [
        {
            "model": member.run.model,
            "tag": member.run.tag,
            "fold": member.run.fold,
            "epoch": member.epoch,
            "weight": member.weight / total,
        }
        for member in members
    ]
    ensemble = {"members": described, "hflip": hflip}
    ensemble |= {"size_rule": settings.size_rule, "k": settings.k}
    return header | {"fold": common_fold(members), "ensemble": ensemble}
