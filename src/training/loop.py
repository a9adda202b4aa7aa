"""A whole training: epochs and validation, from the beginning or from where one stopped."""

from __future__ import annotations

import time
from contextlib import closing

import torch

from src.datasets.loaders import LabelledImages, training_loader, validation_loader
from src.experiments.checkpoints import CheckpointError, load_checkpoint, load_weights
from src.experiments.experiment import Experiment
from src.experiments.experiment_file import note_end, sample_options
from src.experiments.networks import build_model
from src.experiments.runs import Run
from src.prediction.provenance import trained_provenance
from src.retinanet.acceleration import peak_memory
from src.retinanet.model import RetinaNet
from src.system.errors import InputError, Interrupted
from src.system.processes import StopRequest
from src.training.ending import FOLLOWED_LOSS, Ending, find_ending, find_signal
from src.training.epoch import Stopped, train_epoch, validate
from src.training.optimizer import Optimization
from src.training.options import TrainingOptions
from src.training.progress import Progress, history_row
from src.training.run_files import FoundState, TrainingFiles
from src.training.step import Learner, StepKey, seed_step

# How PyTorch begins to say that batch norm saw one value to a channel, of one image alone.
TOO_FEW_VALUES = "Expected more than 1 value per channel"


class Training:
    """One run in progress: build it, `start` it, `run` it.

    Attributes:
        files: what it reads and writes in the run's folder.
        progress: the epoch that is trained next, or what is left of it.
        history: a row for each epoch that is done.
    """

    def __init__(
        self, run: Run, experiment: Experiment, images: LabelledImages, options: TrainingOptions
    ) -> None:
        """Build network, optimizer and loaders; nothing of the run's folder is read or written.

        Raises:
            InputError: the options, the experiment and the images do not fit together.
        """
        self.experiment, self.options, self.images = experiment, options, images
        if options.from_epoch >= experiment.n_epochs:
            raise InputError(
                f"--from-epoch {options.from_epoch}: the experiment has epochs 0 to "
                f"{experiment.n_epochs - 1}; --num-epochs makes it longer"
            )
        self.files = TrainingFiles(run, experiment, options)
        self.train_loader, self.sampler = training_loader(
            images,
            sample_options(experiment, options.seed),
            batch_size=experiment.batch_size,
            n_workers=options.n_workers,
            device=options.acceleration.device,
            accumulate=experiment.accumulate,
            share=(options.processes.rank, options.processes.count),
        )
        self.valid_loader = validation_loader(
            images,
            sample_options(experiment, options.seed),
            batch_size=experiment.batch_size,
            n_workers=options.n_workers,
            device=options.acceleration.device,
            share=(options.processes.rank, options.processes.count),
        )
        self.learner = self._build_learner()
        self.history: list[dict[str, float]] = []
        self.progress = Progress(epoch=options.from_epoch)
        self.saved_at = time.monotonic()

    @property
    def model(self) -> RetinaNet:
        return self.learner.model

    @property
    def ending(self) -> Ending | None:
        """Return why no epoch is left, None as long as one is."""
        n_epochs, patience = self.experiment.n_epochs, self.options.patience
        return find_ending(self.progress.epoch, self.history, n_epochs, patience)

    def start(self) -> None:
        """Take the run's folder, restore the state that the run continues from, describe the run.

        A run that begins writes its first state: from then on --resume needs no flag to repeat.

        Raises:
            InputError: the run's folder holds a training already, another process trains there,
                a checkpoint or the images do not fit, or the folder cannot be written.
        """
        last = self.files.find_last()
        if self.options.processes.is_first:
            if last is not None:
                self.files.check_images(self.images)
            self.files.lock()
        if last is not None:
            self._restore(last)
            self._note_end(None)
            self.saved_at = time.monotonic()
            return
        self._load_first_weights()
        if self.options.processes.is_first:
            self.files.describe_training(self.images)
        self._save_state()

    def describe(self) -> str:
        """Say in a line what `run` will do."""
        acceleration, processes = self.options.acceleration, self.options.processes
        place = f"{acceleration.device} in {acceleration.precision}"
        place += f", {processes.count} processes" if processes.count > 1 else ""
        epochs = f"epochs {self.progress.epoch} to {self.experiment.n_epochs - 1}"
        if self.ending is not None:
            epochs = "no epoch is left"
        elif self.progress.n_batches:
            epochs += f", after {self.progress.n_batches} of {self.sampler.n_batches} batches"
        return (
            f"{self.files.run.name} on {place}: {len(self.images.train)} training images, "
            f"{len(self.images.valid)} for validation, {epochs}"
        )

    def run(self) -> Ending:
        """Train the epochs that are left of a run that was started; return why none is.

        Raises:
            Interrupted: on Ctrl-C or SIGTERM, or at the deadline, after the state was saved.
            InputError: numbers are not finite, or the GPU's memory is too small.
        """
        with closing(self.files), self.options.stop as request:
            try:
                while (ending := self.ending) is None:
                    self._run_epoch(request)
            except Stopped:
                raise self._interrupt() from None
            except torch.OutOfMemoryError as error:
                raise self._out_of_memory() from error
            except ValueError as error:
                if str(error).startswith(TOO_FEW_VALUES):
                    raise self._single_image() from error
                raise
            self._note_end(ending.by)
            return ending

    def _build_learner(self) -> Learner:
        options, experiment = self.options, self.experiment
        seed_step(StepKey(options.seed, 0, 0))
        model = build_model(experiment, encoder_weights=options.encoder_weights)
        options.acceleration.place_for_training(model)
        return Learner(
            model=model,
            optimization=Optimization(
                model,
                experiment,
                steps_per_epoch=-(-self.sampler.n_batches // experiment.accumulate),
                scales_loss=options.acceleration.precision == "fp16",
            ),
            acceleration=options.acceleration,
            loss=experiment.loss,
            processes=options.processes,
            seed=options.seed,
            accumulate=experiment.accumulate,
            skips_non_finite=options.skips_non_finite,
        )

    def _load_first_weights(self) -> None:
        """Take the weights and the history of the epochs before the first, if it is not 0."""
        path, from_epoch = self.options.weights_path, self.options.from_epoch
        if path is not None:
            load_weights(self.model, load_checkpoint(path, self.files.run.model), path)
        if self.options.init_weights is not None:
            path = self.options.init_weights
            load_weights(self.model, load_checkpoint(path), path)
        if from_epoch:
            self.learner.optimization.skip_epochs(from_epoch)
            self.history = self.files.earlier_history()

    def _restore(self, last: FoundState) -> None:
        load_weights(self.model, last.checkpoint, last.path)
        try:
            self.learner.optimization.load_state(last.training, last.checkpoint.optimizer)
            self.history = list(last.training.history)
            self.progress = Progress.from_state(last.training.progress)
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{last.path}: its training state does not fit: {error}"
            ) from error

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
        with self.learner.optimization.averaged():
            self._finish_epoch(request)
        self._save_state()  # comes last: with it the epoch is done

    def _finish_epoch(self, request: StopRequest) -> None:
        """Validate and save the weights that the network holds."""
        progress = self.progress
        self.learner.spread_statistics()
        began = time.monotonic()
        validated, predictions = validate(
            self.model,
            self.valid_loader,
            acceleration=self.options.acceleration,
            provenance=trained_provenance(
                self.files.run,
                self.experiment,
                progress.epoch,
                images=self.images.valid_fingerprint,
            ),
            loss=self.experiment.loss,
            processes=self.options.processes,
            weak=self.options.weak,
            wants_to_stop=request,
        )
        row = history_row(
            progress,
            validated,
            valid_seconds=time.monotonic() - began,
            peak_memory=peak_memory(self.options.acceleration.device),
        )
        self.learner.optimization.scheduler.after_epoch(validated[FOLLOWED_LOSS])
        self.history.append(row)
        self.progress = Progress(epoch=progress.epoch + 1)
        if self.options.processes.is_first:
            self.files.write_epoch(self.model, predictions, self.history, self.images.source)

    def _save_state_when_due(self) -> None:
        if time.monotonic() - self.saved_at >= 60 * self.options.checkpoint_minutes:
            self._save_state()

    def _save_state(self) -> None:
        """Write all that an exact resume needs, in the middle of an epoch too."""
        self.saved_at = time.monotonic()
        if self.options.processes.is_first:
            self.files.write_state(self.learner, self.progress, self.history)

    def _note_end(self, ended_by: str | None) -> None:
        if self.options.processes.is_first:
            n_epochs = max(self.experiment.n_epochs, self.progress.epoch)
            note_end(self.files.run, ended_by, n_epochs)

    def _interrupt(self) -> Interrupted:
        """Save the state, note what stopped the training, and make the error that says it."""
        processes = self.options.processes
        signal = find_signal(self.options.stop, processes)
        cause = signal.name if signal else "--max-hours"
        self._save_state()
        self._note_end(cause)
        processes.gather(None)  # when one has ended, torchrun ends the others
        done = f"epoch {self.progress.epoch}, {self.progress.n_batches} of {self.sampler.n_batches}"
        return Interrupted(
            f"stopped by {cause} in {done} batches; --resume goes on from there",
            signal,
        )

    def _single_image(self) -> InputError:
        return InputError(
            f"the encoder's batch norm cannot be trained on a batch of one image, which "
            f"--batch-size {self.experiment.batch_size} makes of {len(self.images.train)} training "
            f"images in {self.options.processes.count} processes; another --batch-size, or --set "
            f"batch_norm=frozen, does without"
        )

    def _out_of_memory(self) -> InputError:
        experiment, half = self.experiment, max(1, self.experiment.batch_size // 2)
        return self.options.acceleration.out_of_memory(
            experiment.batch_size,
            experiment.img_size,
            f"--batch-size {half} --set accumulate={2 * experiment.accumulate} trains the same "
            f"steps, --checkpoint-encoder and --precision bf16 need less",
        )
