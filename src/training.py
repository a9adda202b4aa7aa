"""A whole training: epochs, validation, and every file that a run leaves behind."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from src.checkpoints import Checkpoint, CheckpointError, load_checkpoint, load_weights
from src.datasets.detection_dataset import SampleOptions
from src.datasets.loaders import LabelledImages, training_loader, validation_loader
from src.engine import (
    LOSS_NAMES,
    Scheduler,
    StepKey,
    make_optimizer,
    seed_step,
    train_epoch,
    validate,
)
from src.errors import InputError
from src.files import make_dir, output_errors, write_json
from src.history import read_history, write_history
from src.models import ModelInfo, build_model
from src.predictions import Predictions
from src.retinanet.model import RetinaNet
from src.runs import Run

INITIALISATION = -1  # stands for the epoch in the seed of the first weights
VERSIONED = ("torch", "torchvision", "numpy", "opencv-python-headless", "pydicom", "simplejpeg",
             "timm", "pretrainedmodels")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train, beside the experiment's own settings.

    Attributes:
        device: where the network lives.
        seed: of order, augmentation, first weights and dropout.
        n_workers: processes that prepare images; None chooses.
        resume: go on where the run stopped, if it did.
        from_epoch: the first epoch; the weights of the one before must be there.
        weights_path: start from this checkpoint's weights.
        encoder_weights: start the encoder from this file.
    """

    device: torch.device
    seed: int
    n_workers: int | None = None
    resume: bool = False
    from_epoch: int = 0
    weights_path: Path | None = None
    encoder_weights: Path | None = None


class Training:
    """One run in progress."""

    def __init__(
        self, run: Run, info: ModelInfo, images: LabelledImages, options: TrainingOptions
    ) -> None:
        """Build network, optimizer and loaders, and restore them where a run goes on.

        Raises:
            InputError: the run's folder holds a training already, a checkpoint does not fit, or
                the folder cannot be written.
        """
        self.run, self.info, self.options = run, info, options
        if options.from_epoch > info.n_epochs:
            raise InputError(
                f"--from-epoch {options.from_epoch}: the experiment has epochs 0 to "
                f"{info.n_epochs - 1}; --num-epochs makes it longer"
            )
        last = self._last_checkpoint()
        make_dir(run.dir)
        self.model = self._build_model(skip_weights=last is not None)
        self.optimizer = make_optimizer(self.model, info)
        self.train_loader, self.sampler = training_loader(
            images,
            sample_options(info, options.seed),
            batch_size=info.batch_size,
            n_workers=options.n_workers,
            device=options.device,
        )
        self.valid_loader = validation_loader(
            images,
            sample_options(info, options.seed),
            batch_size=info.batch_size,
            n_workers=options.n_workers,
            device=options.device,
        )
        self.scheduler = Scheduler(self.optimizer, info, len(self.train_loader))
        self.history: list[dict[str, float]] = []
        self.next_epoch = options.from_epoch
        if last is not None:
            self._restore(last)
        elif options.from_epoch:
            self.optimizer.step()  # moves nothing without gradients; schedulers expect it first
            self.scheduler.skip(options.from_epoch, len(self.train_loader))
            self.history = self._earlier_history()
        if last is None:
            write_json(run.experiment_path, self._describe(images))

    def finish(self) -> None:
        """Train the epochs that are left."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.run.tensorboard_dir
        with output_errors(folder):
            board = SummaryWriter(str(folder), purge_step=self.next_epoch)
        for epoch in range(self.next_epoch, self.info.n_epochs):
            row = self._run_epoch(epoch)
            with output_errors(folder):
                for name, value in row.items():
                    board.add_scalar(name, value, epoch)
                board.flush()
        with output_errors(folder):
            board.close()

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        """Train, validate and save one epoch; the last checkpoint is written last."""
        learning_rate = self.optimizer.param_groups[-1]["lr"]
        self.sampler.epoch = epoch
        trained = train_epoch(
            self.model,
            self.train_loader,
            self.optimizer,
            self.scheduler,
            clip_norm=self.info.clip_norm,
            device=self.options.device,
            seed=self.options.seed,
            epoch=epoch,
        )
        validated, predictions = validate(
            self.model,
            self.valid_loader,
            device=self.options.device,
            header=prediction_header(self.run, self.info, epoch),
        )
        self.scheduler.after_epoch(validated["regression"])
        row = {"epoch": epoch, "learning_rate": learning_rate}
        row |= {f"train_{name}": trained[name] for name in LOSS_NAMES}
        row |= {f"valid_{name}": validated[name] for name in LOSS_NAMES}
        self.history.append(row)
        self._save(epoch, predictions)
        return row

    def _save(self, epoch: int, predictions: Predictions) -> None:
        predictions.save(self.run.predictions_path(epoch))
        weights = Checkpoint(
            experiment=self.run.model,
            settings=dataclasses.asdict(self.info),
            epoch=epoch,
            model=self.model.state_dict(),
            training={},
        )
        weights.save(self.run.checkpoint_path(epoch))
        write_history(self.run.history_path, self.history)
        training = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": self.history,
            "seed": self.options.seed,
        }
        dataclasses.replace(weights, training=training).save(self.run.last_checkpoint_path)

    def _last_checkpoint(self) -> Checkpoint | None:
        """Load what a resumed run goes on from; refuse to train over an older run."""
        path = self.run.last_checkpoint_path
        if self.options.resume and path.exists():
            return load_checkpoint(path, self.run.model, resume=True)
        if self.options.resume and any(self.run.epochs_with_checkpoint()):
            raise InputError(f"{path}: is missing, and without it nothing can go on from here")
        if self.options.resume:  # stopped before its first epoch was done: begin again
            return None
        taken = [epoch for epoch in self.run.epochs_with_checkpoint()
                 if epoch >= self.options.from_epoch]  # fmt: skip
        if taken:
            raise InputError(
                f"{self.run.dir}: holds epoch {taken[0]} already; --resume goes on with it, "
                f"--run TAG starts another run"
            )
        return None

    def _earlier_history(self) -> list[dict[str, float]]:
        """Read the rows of the epochs before, where this run has them."""
        path = self.run.history_path
        if not path.exists():
            return []
        columns = [f"{part}_{name}" for part in ("train", "valid") for name in LOSS_NAMES]
        table = read_history(path, ["learning_rate", *columns])
        rows = table[table["epoch"] < self.options.from_epoch].to_dict("records")
        return [{str(name): value for name, value in row.items()} for row in rows]

    def _build_model(self, *, skip_weights: bool) -> RetinaNet:
        seed_step(StepKey(self.options.seed, 0, 0))
        encoder_weights = None if skip_weights else self.options.encoder_weights
        model = build_model(self.info, encoder_weights=encoder_weights)
        if self.options.weights_path is not None and not skip_weights:
            checkpoint = load_checkpoint(self.options.weights_path, self.run.model)
            load_weights(model, checkpoint, self.options.weights_path)
        return model.to(self.options.device)

    def _restore(self, last: Checkpoint) -> None:
        path = self.run.last_checkpoint_path
        self._check_settings(last)
        load_weights(self.model, last, path)
        try:
            self.optimizer.load_state_dict(last.training["optimizer"])
            self.scheduler.load_state_dict(last.training["scheduler"])
            self.history = list(last.training["history"])
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: its training state does not fit: {error}") from error
        self.next_epoch = last.epoch + 1

    def _check_settings(self, last: Checkpoint) -> None:
        """A training that goes on must go on as it began."""
        path = self.run.last_checkpoint_path
        settings = dataclasses.asdict(self.info) | {"seed": self.options.seed}
        began = last.settings | {"seed": last.training.get("seed")}
        if self.info.scheduler != "one_cycle":
            settings["n_epochs"] = began.get("n_epochs")  # only one-cycle depends on the length
        for name, value in settings.items():
            if began.get(name) != value:
                raise CheckpointError(
                    f"{path}: began with {name} {began.get(name)}, now it is {value}; "
                    f"--resume needs the same"
                )

    def _describe(self, images: LabelledImages) -> dict[str, Any]:
        """Collect what tells how the run was made."""
        return {
            "model": self.run.model,
            "fold": self.run.fold,
            "tag": self.run.tag,
            "settings": dataclasses.asdict(self.info),
            "seed": self.options.seed,
            "device": str(self.options.device),
            "images": str(images.images_dir),
            "n_train": len(images.train),
            "n_valid": len(images.valid),
            "weights_path": self.options.weights_path,
            "encoder_weights": self.options.encoder_weights,
            "command": sys.argv,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in VERSIONED},
            "git_commit": git_commit(),
        }


def sample_options(info: ModelInfo, seed: int = 0) -> SampleOptions:
    """Take from an experiment what shapes its samples."""
    return SampleOptions(
        img_size=info.img_size,
        source_crop=info.source_crop,
        augmentation_level=info.augmentation_level,
        box_points=info.box_points,
        hflip=info.hflip,
        seed=seed,
    )


def prediction_header(run: Run, info: ModelInfo, epoch: int) -> dict[str, Any]:
    """Say where predictions come from."""
    return {
        "img_size": info.img_size,
        "source_crop": info.source_crop,
        "frame": "pixels of the network input",
        "model": run.model,
        "fold": run.fold,
        "tag": run.tag,
        "epoch": epoch,
    }


def git_commit() -> str | None:
    """Return the commit of the code that runs, "+" behind it where files were changed."""
    try:
        command = [
            "git",
            "-C",
            str(Path(__file__).parent),
            "describe",
            "--always",
            "--dirty=+",
            "--abbrev=40",
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
