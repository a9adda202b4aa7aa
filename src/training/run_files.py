"""The files of a training: written epoch by epoch, and read when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from src.datasets.fingerprint import data_fingerprint
from src.datasets.loaders import LabelledImages
from src.experiments.checkpoints import Checkpoint, CheckpointError, load_checkpoint
from src.experiments.experiment import Experiment, with_defaults
from src.experiments.experiment_file import StoredTraining, write_stored_training
from src.experiments.history import read_history, write_history
from src.experiments.runs import Run, read_description
from src.prediction.predictions import Predictions
from src.retinanet.model import RetinaNet
from src.structures import LOSS_NAMES
from src.system.errors import InputError
from src.system.files import output_errors, write_json
from src.system.folder_lock import locked_dir
from src.training.options import TrainingOptions

BUSY = "is training there; wait for it, or choose another --run TAG"


class TrainingFiles:
    """The files in a run's folder, which belongs to this process alone from `lock` to `close`."""

    def __init__(self, run: Run, experiment: Experiment, options: TrainingOptions) -> None:
        self.run, self.experiment, self.options = run, experiment, options
        # What must be the same when the training is resumed, beside the experiment's settings.
        self.own = {"seed": options.seed, "precision": options.acceleration.precision}
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

    def find_last(self) -> Checkpoint | None:
        """Load the state that the training continues from; None where it begins.

        Raises:
            InputError: the run holds epochs that would be lost, or began with other settings.
        """
        resume, from_epoch = self.options.resume, self.options.from_epoch
        path, saved = self.run.last_checkpoint_path, self.run.epochs_with_checkpoint()
        if resume and path.exists():
            last = load_checkpoint(path, self.run.model, resume=True)
            self._check_settings(last)
            if last.epoch + 1 < from_epoch:
                raise InputError(
                    f"{path}: stands in epoch {last.epoch + 1}; --resume goes on from there "
                    f"without --from-epoch {from_epoch}, which begins anew without --resume"
                )
            return last
        # The last file of an epoch is the state: killed before its first, a training begins again.
        if resume and any(epoch > from_epoch for epoch in saved):
            raise InputError(f"{path}: is missing, and without it nothing can go on from here")
        taken = [epoch for epoch in saved if epoch >= from_epoch]
        if taken and not resume:
            raise InputError(
                f"{self.run.dir}: holds epoch {taken[0]} already; --resume goes on with it, "
                f"--run TAG starts another run"
            )
        if path.exists() and not from_epoch:
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
        table = read_history(path, ["learning_rate", *columns, "skipped_steps"])
        rows = table[table["epoch"] < self.options.from_epoch].to_dict("records")
        return [{str(name): value for name, value in row.items()} for row in rows]

    def describe_training(self, images: LabelledImages) -> None:
        """Write experiment.json.

        Raises:
            InputError: the images are not those that the options ask for.
        """
        options = self.options
        fingerprint = data_fingerprint([*images.train, *images.valid], images.images_dir)
        if options.data_fingerprint not in (None, fingerprint):
            raise InputError(
                f"{images.images_dir}: labels or images are not those of the experiment that is "
                f"to be repeated: their fingerprint is {fingerprint[:12]}, it had "
                f"{str(options.data_fingerprint)[:12]}"
            )
        stored = StoredTraining(
            model=self.run.model,
            fold=self.run.fold,
            settings=self.experiment,
            seed=options.seed,
            precision=options.acceleration.precision,
            data_fingerprint=fingerprint,
        )
        details = {
            "device": str(options.acceleration.device),
            "processes": options.processes.count,
            "images": str(images.images_dir.resolve()),
            "n_train": len(images.train),
            "n_valid": len(images.valid),
            "weights_path": options.weights_path,
            "encoder_weights": options.encoder_weights,
        }
        write_stored_training(self.run, stored, details)

    def note_length(self, n_done: int) -> None:
        """Correct the number of epochs in experiment.json where a resumed run has another one.

        Args:
            n_done: epochs that are done; the run has at least as many.
        """
        content = read_description(self.run.experiment_path)
        settings, n_epochs = content.get("settings"), max(self.experiment.n_epochs, n_done)
        if isinstance(settings, dict) and settings.get("n_epochs", n_epochs) != n_epochs:
            settings["n_epochs"] = n_epochs
            write_json(self.run.experiment_path, content)

    def write_epoch(
        self, model: RetinaNet, predictions: Predictions, history: Sequence[dict[str, float]]
    ) -> None:
        """Write predictions, weights and history after the last epoch of `history`."""
        epoch = int(history[-1]["epoch"])
        predictions.save(self.run.predictions_path(epoch))
        self._checkpoint(epoch, model, {}).save(self.run.checkpoint_path(epoch))
        write_history(self.run.history_path, history)
        self.log(history[-1])

    def log(self, row: Mapping[str, float]) -> None:
        """Write an epoch's row to TensorBoard, in place of an earlier one of the same epoch."""
        epoch, folder = int(row["epoch"]), self.run.tensorboard_dir
        with output_errors(folder):
            if self._board is None:
                self._board = SummaryWriter(str(folder), purge_step=epoch)
                self._stack.callback(self._board.close)
            for name, value in row.items():
                self._board.add_scalar(name, value, epoch)
            self._board.flush()

    def write_state(self, epoch: int, model: RetinaNet, state: dict[str, Any]) -> None:
        """Write all that an exact resume needs.

        Args:
            epoch: the last one that is done.
            state: of everything except the weights.
        """
        self._checkpoint(epoch, model, state | self.own).save(self.run.last_checkpoint_path)

    def _checkpoint(self, epoch: int, model: RetinaNet, state: dict[str, Any]) -> Checkpoint:
        return Checkpoint(self.run.model, asdict(self.experiment), epoch, model.state_dict(), state)

    def _check_settings(self, last: Checkpoint) -> None:
        """Make sure that a training is resumed with the settings that it began with."""
        settings = asdict(self.experiment) | self.own
        began = with_defaults(last.settings) | {n: last.training.get(n) for n in self.own}
        if self.experiment.scheduler != "one_cycle":
            settings["n_epochs"] = began.get("n_epochs")  # only one-cycle depends on the length
        for name in [*settings, *began]:
            if began.get(name) != settings.get(name):
                raise CheckpointError(
                    f"{self.run.last_checkpoint_path}: began with {name} {began.get(name)}, now it "
                    f"is {settings.get(name)}; --resume needs the same"
                )
