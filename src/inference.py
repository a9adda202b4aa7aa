"""A trained model over images: the validation fold, the test images, anybody's own files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from src.checkpoints import load_checkpoint, load_weights
from src.datasets.annotations import CLASS_NAMES, DataFolder
from src.datasets.detection_dataset import Sample, ValidationDataset
from src.datasets.image_files import ImageFile, find_challenge_images
from src.datasets.loaders import load_labelled_images, unlabelled_loader
from src.datasets.test_dataset import TestDataset
from src.diagnostics import DEFAULT_THRESHOLD
from src.engine import predict
from src.errors import InputError
from src.files import replaced_file
from src.models import ModelInfo, build_model
from src.predictions import Predictions, load_predictions
from src.retinanet.ensemble import SECOND_PLACE_K, Ensemble, SizeRule
from src.retinanet.model import RetinaNet
from src.runs import Run
from src.scores import load_sweep
from src.selection import select_boxes
from src.training import prediction_header, sample_options
from src.visualizations.overlays import draw_predictions, save_picture

BOX_COLUMNS = ("file", "x", "y", "width", "height", "score")


@dataclass(frozen=True, kw_only=True)
class EnsembleOptions:
    """How members are combined; see `retinanet.ensemble.Ensemble`."""

    size_rule: SizeRule = "percentile"
    k: float = SECOND_PLACE_K
    hflip: bool = False


@dataclass(frozen=True, kw_only=True)
class Inference:
    """One experiment's run, ready to predict.

    Attributes:
        run: whose checkpoints are used.
        info: its settings.
        device: where the network runs.
        n_workers: processes that read images ahead; None chooses.
        weights_dir: the folder of runs that holds the checkpoints; None takes the run's own.
        debug: a few images of the validation fold only.
        overwrite: make predictions again that are saved already.
    """

    run: Run
    info: ModelInfo
    device: torch.device
    n_workers: int | None = None
    weights_dir: Path | None = None
    debug: bool = False
    overwrite: bool = False

    def load_model(self, epoch: int, fold: int | None = None) -> RetinaNet:
        """Build the network with the weights of an epoch, of this run's fold or of another."""
        run = self.run if fold is None else replace(self.run, fold=fold)
        path = checkpoint_path(run, epoch, self.weights_dir)
        checkpoint = load_checkpoint(path, run.model)
        model = build_model(self.info)
        load_weights(model, checkpoint, path)
        return model.to(self.device)

    def predict(
        self, dataset: Dataset[Sample], epoch: int, *, model: RetinaNet | Ensemble | None = None
    ) -> Predictions:
        """Predict every image of a data set, by `model` or the weights of `epoch`."""
        loader = unlabelled_loader(
            dataset,
            batch_size=self.info.batch_size,
            n_workers=self.n_workers,
            device=self.device,
        )
        header = prediction_header(self.run, self.info, epoch)
        model = self.load_model(epoch) if model is None else model
        return predict(model, loader, device=self.device, header=header)

    def predict_by_ensemble(
        self,
        files: Sequence[ImageFile],
        members: Sequence[tuple[int, int]],
        options: EnsembleOptions,
    ) -> Predictions:
        """Predict image files by several (fold, epoch) of the run's experiment at once."""
        networks = [self.load_model(epoch, fold) for fold, epoch in members]
        ensemble = Ensemble(networks, size_rule=options.size_rule, k=options.k, hflip=options.hflip)
        dataset = TestDataset(files, sample_options(self.info))
        predictions = self.predict(dataset, members[0][1], model=ensemble)
        described = {"members": [list(member) for member in members], **asdict(options)}
        header = predictions.header | {"fold": None, "epoch": None, "ensemble": described}
        return replace(predictions, header=header)

    def predict_files(self, files: Sequence[ImageFile], epoch: int) -> Predictions:
        """Predict image files, wherever they lie."""
        return self.predict(TestDataset(files, sample_options(self.info)), epoch)

    def predict_split(self, split: str, data_dir: Path, epoch: int) -> tuple[Predictions, Path]:
        """Load an epoch's predictions of a split, or make and save them.

        Args:
            split: "valid", the run's own fold, or "test".
            data_dir: the challenge's unpacked archive.

        Returns:
            The predictions and their file.

        Raises:
            InputError: predictions are there, but of other images or perhaps of other weights.
        """
        dataset: Dataset[Sample]
        if split == "test":
            path = self.run.test_predictions_path(epoch)
            files = find_challenge_images(DataFolder(data_dir).images_dir("test"))
            ids = [file.id for file in files]
            dataset = TestDataset(files, sample_options(self.info))
        else:
            path = self.run.predictions_path(epoch)
            images = load_labelled_images(data_dir, self.run.fold, debug=self.debug)
            ids = [record.patient_id for record in images.valid]
            dataset = ValidationDataset(images.valid, images.images_dir, sample_options(self.info))
        if path.exists() and not self.overwrite:
            if self.weights_dir is not None:
                raise InputError(f"{path}: is there already; --overwrite makes it again")
            predictions = load_predictions(path)
            if predictions.ids.tolist() != ids:
                raise InputError(f"{path}: is of other images; --overwrite makes it again")
            return predictions, path
        predictions = self.predict(dataset, epoch)
        predictions.save(path)
        return predictions, path


def checkpoint_path(run: Run, epoch: int, weights_dir: Path | None) -> Path:
    """Find an epoch's weights in the run's folder, or in the one of its name elsewhere.

    Raises:
        InputError: they are not there.
    """
    source = run if weights_dir is None else replace(run, output_dir=weights_dir)
    path = source.checkpoint_path(epoch)
    if not path.is_file():
        saved = source.epochs_with_checkpoint()
        has = f"it has epochs {saved}" if saved else "--action train makes them"
        raise InputError(f"{path}: no such checkpoint; {has}")
    return path


def default_epoch(run: Run, weights_dir: Path | None = None) -> int:
    """Choose the best epoch by check_metric or, where nothing was scored, the last one saved.

    Raises:
        InputError: no checkpoints are there.
    """
    if run.scores_path.exists():
        return int(load_sweep(run.scores_path).best()["epoch"])
    source = run if weights_dir is None else replace(run, output_dir=weights_dir)
    saved = source.epochs_with_checkpoint()
    if not saved:
        raise InputError(f"{source.dir}: holds no checkpoints; --action train makes them")
    return saved[-1]


def default_threshold(run: Run, epoch: int) -> float:
    """Choose an epoch's best threshold on score x 5 by check_metric, else the second place's."""
    if not run.scores_path.exists():
        return DEFAULT_THRESHOLD
    sweep = load_sweep(run.scores_path)
    return float(sweep.best(epoch)["threshold"]) if epoch in sweep.epochs else DEFAULT_THRESHOLD


def write_boxes(path: Path, predictions: Predictions, *, threshold: float, nms: float) -> None:
    """Write a row for each box, in pixels of its file; an image without one has a row too.

    Columns: file, x, y, width, height, score, and the probability of each class of the image.
    """
    with replaced_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*BOX_COLUMNS, *(f"P({name})" for name in CLASS_NAMES)])
        for found in select_boxes(predictions, threshold=threshold, nms=nms):
            probs = [f"{p:.4f}" for p in predictions.class_probs[found.image]]
            name = str(predictions.ids[found.image])
            for (x, y, x2, y2), score in zip(found.boxes_xyxy, found.scores, strict=True):
                box = [f"{value:.1f}" for value in (x, y, x2 - x, y2 - y)]
                writer.writerow([name, *box, f"{score:.4f}", *probs])
            if not len(found.scores):
                writer.writerow([name, *[""] * 5, *probs])


def draw_files(
    folder: Path,
    files: Sequence[ImageFile],
    predictions: Predictions,
    dataset: TestDataset,
    *,
    threshold: float,
    nms: float,
) -> None:
    """Draw the boxes over every image: PNG files named after the images."""
    for i, file in enumerate(files):
        image = dataset[i].image[0].numpy()
        picture = draw_predictions(image, predictions, i, threshold=threshold, nms=nms)
        save_picture(folder / f"{file.id.replace('/', '_')}.png", picture)
