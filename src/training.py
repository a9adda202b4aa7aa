"""A whole training: epochs, validation, and every file that a run leaves behind."""

from __future__ import annotations

import dataclasses
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from src.acceleration import Acceleration
from src.checkpoints import Checkpoint, CheckpointError, load_checkpoint, load_weights
from src.datasets.detection_dataset import SampleOptions
from src.datasets.fingerprint import data_fingerprint
from src.datasets.loaders import LabelledImages, training_loader, validation_loader
from src.distributed import ALONE, Processes
from src.engine import LOSS_NAMES, Stopped, validate
from src.errors import InputError, Interrupted
from src.experiments import Experiment, write_experiment
from src.files import locked_dir, output_errors
from src.history import read_history, write_history
from src.interruption import StopRequest
from src.learning import Learner, Progress, StepKey, seed_step, train_epoch
from src.models import ModelInfo, build_model
from src.optimization import Optimization
from src.predictions import Predictions
from src.retinanet.model import RetinaNet
from src.runs import Run

VERSIONED = ("torch", "torchvision", "numpy", "opencv-python-headless", "pydicom", "simplejpeg",
             "timm", "pretrainedmodels")  # fmt: skip


if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train, beside the experiment's own settings.

    Attributes:
        acceleration: where and how the network runs.
        processes: that train together.
        seed: of order, augmentation, first weights and dropout.
        n_workers: processes that prepare images; None chooses.
        resume: go on where the run stopped, if it did.
        from_epoch: the first epoch; the weights of the one before must be there.
        weights_path: start from this checkpoint's weights.
        encoder_weights: start the encoder from this file.
        checkpoint_minutes: the longest time between two states that a run can go on from.
        skips_non_finite: leave out steps whose loss or gradient is not finite, and count them.
        data_fingerprint: that labels and images must have; None asks nothing.
    """

    acceleration: Acceleration
    processes: Processes = ALONE
    seed: int
    n_workers: int | None = None
    resume: bool = False
    from_epoch: int = 0
    weights_path: Path | None = None
    encoder_weights: Path | None = None
    checkpoint_minutes: float = 10.0
    skips_non_finite: bool = False
    data_fingerprint: str | None = None


class Training:
    """One run in progress."""

    def __init__(
        self, run: Run, info: ModelInfo, images: LabelledImages, options: TrainingOptions
    ) -> None:
        """Build network, optimizer and loaders, and restore them where a run goes on.

        Raises:
            InputError: the run's folder holds a training already, another process trains there,
                a checkpoint does not fit, or the folder cannot be written.
        """
        self.run, self.info, self.options = run, info, options
        if options.from_epoch > info.n_epochs:
            raise InputError(
                f"--from-epoch {options.from_epoch}: the experiment has epochs 0 to "
                f"{info.n_epochs - 1}; --num-epochs makes it longer"
            )
        self.n_train, self.n_valid = len(images.train), len(images.valid)
        last = self._last_checkpoint()
        if last is not None:
            self._check_settings(last)
        self._held = ExitStack()
        if options.processes.is_first:
            self._held.enter_context(locked_dir(run.dir))
        self.train_loader, self.sampler = training_loader(
            images,
            sample_options(info, options.seed),
            batch_size=info.batch_size,
            n_workers=options.n_workers,
            device=options.acceleration.device,
            accumulate=info.accumulate,
            share=(options.processes.rank, options.processes.count),
        )
        self.valid_loader = validation_loader(
            images,
            sample_options(info, options.seed),
            batch_size=info.batch_size,
            n_workers=options.n_workers,
            device=options.acceleration.device,
            share=(options.processes.rank, options.processes.count),
        )
        self.learner = self._make_learner(skip_weights=last is not None)
        self.history: list[dict[str, float]] = []
        self.progress = Progress(epoch=options.from_epoch)
        if last is not None:
            self._restore(last)
        elif options.from_epoch:
            self.learner.optimization.skip_epochs(options.from_epoch)
            self.history = self._earlier_history()
        if last is None and options.processes.is_first:
            self._write_experiment(images)
        self.saved_at = time.monotonic()
        self._board: SummaryWriter | None = None

    @property
    def model(self) -> RetinaNet:
        return self.learner.model

    def describe(self) -> str:
        """Say in a line what will happen."""
        acceleration, processes = self.options.acceleration, self.options.processes
        place = f"{acceleration.device} in {acceleration.precision}"
        place += f", {processes.count} processes" if processes.count > 1 else ""
        start = f"epochs {self.progress.epoch} to {self.info.n_epochs - 1}"
        if self.progress.n_batches:
            start += f", after {self.progress.n_batches} of {self.sampler.n_batches} batches"
        return (
            f"{self.run.name}: {self.n_train} training images, {self.n_valid} for validation, "
            f"{start} on {place}"
        )

    def finish(self) -> None:
        """Train the epochs that are left.

        Raises:
            Interrupted: on Ctrl-C or SIGTERM, after the state was saved.
            InputError: numbers are not finite, or the GPU's memory is too small.
        """
        with self._held, StopRequest() as request:
            try:
                while self.progress.epoch < self.info.n_epochs:
                    self._run_epoch(request)
            except Stopped:
                self._save_state()
                raise self._interrupted(request) from None
            except torch.OutOfMemoryError as error:
                raise self._out_of_memory() from error

    def _run_epoch(self, request: StopRequest) -> None:
        """Train, validate and save one epoch, or what is left of it."""
        progress = self.progress
        if not progress.n_batches:
            progress.learning_rate = self.learner.optimization.learning_rate
        self.sampler.epoch, self.sampler.n_done = progress.epoch, progress.n_batches
        if progress.n_batches < self.sampler.n_batches:
            train_epoch(
                self.learner,
                self.train_loader,
                progress,
                n_batches=self.sampler.n_batches,
                wants_to_stop=request,
                after_step=self._save_state_when_due,
            )
        validated, predictions = validate(
            self.model,
            self.valid_loader,
            acceleration=self.options.acceleration,
            header=prediction_header(self.run, self.info, progress.epoch),
            processes=self.options.processes,
            wants_to_stop=request,
        )
        self.learner.optimization.scheduler.after_epoch(validated["regression"])
        row = {"epoch": progress.epoch, "learning_rate": progress.learning_rate}
        trained = progress.running.means()
        row |= {f"train_{name}": trained[name] for name in LOSS_NAMES}
        row |= {f"valid_{name}": validated[name] for name in LOSS_NAMES}
        row["skipped_steps"] = progress.n_skipped
        self.history.append(row)
        self.progress = Progress(epoch=progress.epoch + 1)
        self._save_epoch(progress.epoch, predictions)

    def _save_epoch(self, epoch: int, predictions: Predictions) -> None:
        """Write what an epoch leaves behind; the state to go on from comes last."""
        if self.options.processes.is_first:
            predictions.save(self.run.predictions_path(epoch))
            self._checkpoint(epoch, {}).save(self.run.checkpoint_path(epoch))
            write_history(self.run.history_path, self.history)
            self._log(self.history[-1])
        self._save_state()

    def _log(self, row: dict[str, float]) -> None:
        """Tell TensorBoard of an epoch; where it was told of it before, that is forgotten."""
        from torch.utils.tensorboard import SummaryWriter

        epoch, folder = int(row["epoch"]), self.run.tensorboard_dir
        with output_errors(folder):
            if self._board is None:
                self._board = SummaryWriter(str(folder), purge_step=epoch)
                self._held.callback(self._board.close)
            for name, value in row.items():
                self._board.add_scalar(name, value, epoch)
            self._board.flush()

    def _save_state_when_due(self) -> None:
        if time.monotonic() - self.saved_at >= 60 * self.options.checkpoint_minutes:
            self._save_state()

    def _save_state(self) -> None:
        """Write all that an exact resume needs, in the middle of an epoch too."""
        self.saved_at = time.monotonic()
        if self.options.processes.is_first:
            state = self.learner.optimization.state_dict() | {
                "history": self.history,
                "progress": self.progress.state_dict(),
                "seed": self.options.seed,
                "precision": self.options.acceleration.precision,
            }
            last = self._checkpoint(self.progress.epoch - 1, state)
            last.save(self.run.last_checkpoint_path)

    def _checkpoint(self, epoch: int, state: dict[str, Any]) -> Checkpoint:
        return Checkpoint(
            experiment=self.run.model,
            settings=dataclasses.asdict(self.info),
            epoch=epoch,
            model=self.model.state_dict(),
            training=state,
        )

    def _interrupted(self, request: StopRequest) -> Interrupted:
        number = request.received or signal.SIGTERM  # of another process
        done = f"epoch {self.progress.epoch}, {self.progress.n_batches} of {self.sampler.n_batches}"
        return Interrupted(
            f"stopped by {number.name} in {done} batches; --resume goes on from there", number
        )

    def _out_of_memory(self) -> InputError:
        info, half = self.info, max(1, self.info.batch_size // 2)
        return self.options.acceleration.out_of_memory(
            info.batch_size,
            info.img_size,
            f"--batch-size {half} --accumulate {2 * info.accumulate} trains the same steps, "
            f"--checkpoint-encoder and --precision bf16 need less",
        )

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
        if path.exists() and not self.options.from_epoch:
            raise InputError(
                f"{self.run.dir}: holds a training that stopped in its first epoch; --resume goes "
                f"on with it, --run TAG starts another run"
            )
        return None

    def _earlier_history(self) -> list[dict[str, float]]:
        """Read the rows of the epochs before, where this run has them."""
        path = self.run.history_path
        if not path.exists():
            return []
        columns = [f"{part}_{name}" for part in ("train", "valid") for name in LOSS_NAMES]
        table = read_history(path, ["learning_rate", *columns, "skipped_steps"])
        rows = table[table["epoch"] < self.options.from_epoch].to_dict("records")
        return [{str(name): value for name, value in row.items()} for row in rows]

    def _make_learner(self, *, skip_weights: bool) -> Learner:
        options = self.options
        seed_step(StepKey(options.seed, 0, 0))
        encoder_weights = None if skip_weights else options.encoder_weights
        model = build_model(self.info, encoder_weights=encoder_weights)
        if options.weights_path is not None and not skip_weights:
            checkpoint = load_checkpoint(options.weights_path, self.run.model)
            load_weights(model, checkpoint, options.weights_path)
        options.acceleration.place_for_training(model)
        return Learner(
            model=model,
            optimization=Optimization(
                model,
                self.info,
                steps_per_epoch=-(-self.sampler.n_batches // self.info.accumulate),
                scales_loss=options.acceleration.precision == "fp16",
            ),
            acceleration=options.acceleration,
            processes=options.processes,
            seed=options.seed,
            accumulate=self.info.accumulate,
            skips_non_finite=options.skips_non_finite,
        )

    def _restore(self, last: Checkpoint) -> None:
        path = self.run.last_checkpoint_path
        load_weights(self.model, last, path)
        try:
            self.learner.optimization.load_state_dict(last.training)
            self.history = list(last.training["history"])
            self.progress = Progress.from_state(last.training["progress"])
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: its training state does not fit: {error}") from error

    def _check_settings(self, last: Checkpoint) -> None:
        """A training that goes on must go on as it began."""
        path = self.run.last_checkpoint_path
        precision = self.options.acceleration.precision
        own = {"seed": self.options.seed, "precision": precision}
        settings = dataclasses.asdict(self.info) | own
        began = last.settings | {name: last.training.get(name) for name in own}
        if self.info.scheduler != "one_cycle":
            settings["n_epochs"] = began.get("n_epochs")  # only one-cycle depends on the length
        for name, value in settings.items():
            if began.get(name) != value:
                raise CheckpointError(
                    f"{path}: began with {name} {began.get(name)}, now it is {value}; "
                    f"--resume needs the same"
                )

    def _write_experiment(self, images: LabelledImages) -> None:
        options = self.options
        fingerprint = data_fingerprint([*images.train, *images.valid], images.images_dir)
        if options.data_fingerprint not in (None, fingerprint):
            raise InputError(
                f"{images.images_dir}: labels or images are not those of the experiment that is "
                f"to be repeated: their fingerprint is {fingerprint[:12]}, it had "
                f"{str(options.data_fingerprint)[:12]}"
            )
        experiment = Experiment(
            model=self.run.model,
            fold=self.run.fold,
            settings=self.info,
            seed=options.seed,
            precision=options.acceleration.precision,
            data_fingerprint=fingerprint,
        )
        details = {
            "device": str(options.acceleration.device),
            "processes": options.processes.count,
            "images": str(images.images_dir),
            "n_train": self.n_train,
            "n_valid": self.n_valid,
            "weights_path": options.weights_path,
            "encoder_weights": options.encoder_weights,
        }
        write_experiment(self.run, experiment, details)


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
