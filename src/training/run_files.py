"""The files of a training: written epoch by epoch, and read when it is resumed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from src.datasets.data_folder import ImageSource
from src.datasets.loaders import LabelledImages
from src.experiments.checkpoints import (
    Checkpoint,
    CheckpointError,
    CheckpointFacts,
    TrainingState,
    load_checkpoint,
)
from src.experiments.experiment import Experiment, find_changed
from src.experiments.experiment_file import StoredTraining, WeightsFile, write_stored_training
from src.experiments.history import NEWER_COLUMNS, read_history, write_history
from src.experiments.pretraining import KEY, describe_pretraining
from src.experiments.runs import Run, read_description
from src.prediction.predictions import Predictions
from src.retinanet.model import RetinaNet
from src.structures import LOSS_NAMES
from src.system.errors import InputError
from src.system.files import make_dir, output_errors, text_name
from src.system.folder_lock import locked_dir
from src.training.options import TrainingOptions
from src.training.progress import Progress
from src.training.step import Learner

BUSY = "is training there; wait for it, or choose another --run TAG"


class FoundState(NamedTuple):
    """The state that a training continues from."""

    path: Path
    checkpoint: Checkpoint
    training: TrainingState


def check_data(images: LabelledImages, data: object, split: object, whose: str) -> None:
    """Make sure that images have the fingerprints that are wanted; None takes any.

    Args:
        data, split: of labels and images, and of which of them are trained on and held out.
        whose: they are, in words.

    Raises:
        InputError: labels, images or folds are others.
    """
    for what, its, wanted in (
        ("labels or images", images.data_fingerprint, data),
        ("images or folds", images.split_fingerprint, split),
    ):
        if wanted not in (None, its):
            raise InputError(
                f"{images.images_dir}: {what} are not those of {whose}: their fingerprint is "
                f"{its[:12]}, it had {str(wanted)[:12]}"
            )


def _describe_weights(path: Path | None, sha256: str | None) -> WeightsFile | None:
    """Describe the file that a training begins with, which must have a SHA-256; None takes any."""
    if path is None:
        return None
    found = WeightsFile.at(path)
    if sha256 not in (None, found.sha256):
        raise InputError(
            f"{path}: not the weights that the experiment which is to be repeated began with: "
            f"their SHA-256 is {str(found.sha256)[:12]}, it had {str(sha256)[:12]}"
        )
    return found


class TrainingFiles:
    """The files in a run's folder, which belongs to this process alone from `lock` to `close`."""

    def __init__(self, run: Run, experiment: Experiment, options: TrainingOptions) -> None:
        self.run, self.experiment, self.options = run, experiment, options
        # What must be the same when the training is resumed, beside the experiment's settings.
        self.own: dict[str, Any] = {
            "seed": options.seed,
            "precision": options.acceleration.precision,
        }
        self._stack = ExitStack()
        self._board: SummaryWriter | None = None

    def lock(self) -> None:
        """Keep other trainings out of the folder until `close` or the end of the process.

        Raises:
            OutputError: another process trains there, or the folder cannot be written.
        """
        self._stack.enter_context(locked_dir(self.run.dir, BUSY))

    def close(self) -> None:
        self._stack.close()

    def find_last(self) -> FoundState | None:
        """Load the state that the training continues from; None where it begins.

        Raises:
            InputError: the run holds epochs that would be lost, or began with other settings.
        """
        resume, from_epoch = self.options.resume, self.options.from_epoch
        path, saved = self.run.find_last_checkpoint(), self.run.epochs_with_checkpoint()
        if resume and path is not None:
            last = load_checkpoint(path, self.run.model, resume=True)
            state = last.facts.training
            assert state is not None  # it was asked for
            self._check_settings(path, last.facts.settings, state)
            if last.facts.epoch + 1 < from_epoch:
                raise InputError(
                    f"{path}: stands in epoch {last.facts.epoch + 1}; --resume goes on from there "
                    f"without --from-epoch {from_epoch}, which begins anew without --resume"
                )
            return FoundState(path, last, state)
        # Older versions wrote their first state behind the first epoch's other files: a training
        # of theirs that was killed before it begins again.
        if resume and any(epoch > from_epoch for epoch in saved):
            raise InputError(
                f"{self.run.last_checkpoint_path}: is missing, and without it nothing can go on "
                f"from here"
            )
        taken = [epoch for epoch in saved if epoch >= from_epoch]
        if taken and not resume:
            raise InputError(
                f"{self.run.dir}: holds epoch {taken[0]} already; --resume goes on with it, "
                f"--run TAG starts another run"
            )
        if path is not None and not from_epoch and self._holds_steps(path):
            raise InputError(
                f"{self.run.dir}: holds a training that stopped in its first epoch; --resume goes "
                f"on with it, --run TAG starts another run"
            )
        return None

    def earlier_history(self) -> list[dict[str, float]]:
        """Read the rows of the epochs before --from-epoch, where this run has them."""
        path = self.run.history_path
        if not path.exists():
            return []
        columns = [f"{part}_{name}" for part in ("train", "valid") for name in LOSS_NAMES]
        columns = ["learning_rate", *columns, "skipped_steps"]
        table = read_history(path, columns, optional=NEWER_COLUMNS)
        rows = table[table["epoch"] < self.options.from_epoch].to_dict("records")
        return [{str(name): value for name, value in row.items()} for row in rows]

    def describe_training(self, images: LabelledImages) -> None:
        """Write experiment.json.

        Raises:
            InputError: the images or the first weights are not those that the options ask for.
        """
        options = self.options
        init_weights = _describe_weights(options.init_weights, options.init_sha256)
        encoder_weights = _describe_weights(options.encoder_weights, options.encoder_sha256)
        check_data(
            images,
            options.data_fingerprint,
            options.split_fingerprint,
            "the experiment that is to be repeated",
        )
        stored = StoredTraining(
            model=self.run.model,
            fold=self.run.fold,
            settings=self.experiment,
            seed=options.seed,
            precision=options.acceleration.precision,
            data_fingerprint=images.data_fingerprint,
            split_fingerprint=images.split_fingerprint,
            init_weights=init_weights,
            encoder_weights=encoder_weights,
            weights_path=None if options.weights_path is None else str(options.weights_path),
        )
        details = {
            "device": str(options.acceleration.device),
            "processes": options.processes.count,
            "images": str(images.images_dir.resolve()),
            "n_train": len(images.train),
            "n_valid": len(images.valid),
            KEY: describe_pretraining(self.experiment, init_weights, encoder_weights)._asdict(),
            "ended_by": None,
        }
        write_stored_training(self.run, stored, details)

    def check_images(self, images: LabelledImages) -> None:
        """Make sure that a training goes on with the images that it began with.

        A warning says where their sizes or labels are others: a file that could not be read, or a
        wrong label, may have been mended since.

        Raises:
            InputError: other images are trained on or held out, or a run of an older version, which
                does not tell them apart, has other labels or images.
        """
        began = read_description(self.run.experiment_path)
        data, split = (began.get(f"{name}_fingerprint") for name in ("data", "split"))
        whose = f"the training in {self.run.dir}, which is to go on"
        check_data(images, data if split is None else None, split, whose)
        if data not in (None, images.data_fingerprint):
            warnings.warn(
                f"{images.images_dir}: labels or files are not those that {whose}, began with; it "
                f"goes on with those of now",
                stacklevel=2,
            )

    def write_epoch(
        self,
        model: RetinaNet,
        predictions: Predictions,
        history: Sequence[dict[str, float]],
        source: ImageSource,
    ) -> None:
        """Write predictions, weights and history after the last epoch of `history`.

        Args:
            predictions: of validation.
            source: of its images, for a picture.
        """
        epoch = int(history[-1]["epoch"])
        predictions.save(self.run.predictions_path(epoch))
        facts = self._facts(epoch)
        Checkpoint(facts=facts, model=model.state_dict()).save(self.run.checkpoint_path(epoch))
        write_history(self.run.history_path, history)
        draw = self.options.draw_epoch
        self.log(history[-1], draw(source, predictions) if draw else None)

    def log(self, row: Mapping[str, float], picture: NDArray[np.uint8] | None = None) -> None:
        """Write an epoch's row to TensorBoard, in place of an earlier one of the same epoch.

        Args:
            picture: (H, W, 3), RGB, of its validation.
        """
        epoch, folder = int(row["epoch"]), self.run.tensorboard_dir
        with output_errors(folder):
            if self._board is None:
                place = self._stack.enter_context(text_name(make_dir(folder)))
                self._board = SummaryWriter(place, purge_step=epoch)
                self._stack.callback(self._board.close)
            for name, value in row.items():
                self._board.add_scalar(name, value, epoch)
            if picture is not None:
                self._board.add_image("validation", picture, epoch, dataformats="HWC")
            self._board.flush()

    def write_state(
        self, learner: Learner, progress: Progress, history: Sequence[dict[str, float]]
    ) -> None:
        """Write all that an exact resume needs.

        Args:
            history: a row for each epoch that is done.
        """
        optimization = learner.optimization
        state = TrainingState(
            **optimization.state(),
            **self.own,
            history=tuple(history),
            progress=progress.state_dict(),
        )
        Checkpoint(
            facts=self._facts(progress.epoch - 1, state),
            model=learner.model.state_dict(),
            optimizer=optimization.tensors(),
        ).save(self.run.last_checkpoint_path)

    def _facts(self, epoch: int, training: TrainingState | None = None) -> CheckpointFacts:
        return CheckpointFacts(
            experiment=self.run.model,
            settings=self.experiment,
            epoch=epoch,
            tag=self.run.tag,
            fold=self.run.fold,
            training=training,
        )

    def _holds_steps(self, path: Path) -> bool:
        """Say whether a training has gone beyond its beginning, so that its state must be kept."""
        facts = load_checkpoint(path, self.run.model).facts
        progress = facts.training.progress if facts.training else {}
        return facts.epoch >= 0 or progress.get("n_batches") != 0

    def _check_settings(self, path: Path, began: Experiment, state: TrainingState) -> None:
        """Make sure that a training is resumed with the settings that it began with."""
        changed = [
            (name, getattr(began, name), getattr(self.experiment, name))
            for name in find_changed(began, self.experiment)
        ]
        changed += [(name, getattr(state, name), value) for name, value in self.own.items()]
        for name, then, now in changed:
            if then != now:
                raise CheckpointError(
                    f"{path}: began with {name} {then}, now it is {now}; --resume needs the same"
                )
