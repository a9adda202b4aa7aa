"""Data loaders: worker processes that prepare batches ahead of the network."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from src.datasets.annotations import Record, read_records
from src.datasets.box_sizes import fit_boxes, read_box_sizes
from src.datasets.data_folder import DataFolder, StoredImages, open_image_folder
from src.datasets.detection_dataset import (
    EpochSampler,
    Sample,
    TrainingDataset,
    ValidationDataset,
)
from src.datasets.fingerprint import data_fingerprint, split_fingerprint
from src.datasets.folds import load_folds, split_records
from src.datasets.pixel_cache import open_or_build_cache
from src.datasets.sample_options import SampleOptions
from src.radiographs.remarks import Remark, heard_remarks, summary
from src.structures import Batch, images_as_float
from src.system.errors import InputError
from src.system.processes import (
    MAX_WORKERS,
    WHY_WORKERS_DIE,
    end_workers_at_exit,
    keep_freed_memory,
    worker_errors,
)

# What PyTorch says when it notices that a worker, or the thread that collects from them, has ended.
WORKERS_ARE_LOST = (
    "DataLoader worker (pid",
    "Pin memory thread exited",
    "Too many open files",
    "received 0 items of ancdata",
)
RAISED_IN_A_WORKER = "Caught "  # how PyTorch begins the message of an error that a worker sent
WORKERS_IGNORE = (signal.SIGINT, signal.SIGTERM)
N_DEBUG_TRAIN, N_DEBUG_VALID = 32, 16  # images


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """The images of one fold's training and validation, where they lie, and who reads them.

    The fingerprints are taken once: they look at every file, which is slow on a network drive.
    """

    train: Sequence[Record]
    valid: Sequence[Record]
    images_dir: Path
    source: StoredImages

    @cached_property
    def data_fingerprint(self) -> str:
        """Return that of labels and files of all images."""
        return data_fingerprint([*self.train, *self.valid], self.source)

    @cached_property
    def valid_fingerprint(self) -> str:
        """Return that of labels and files of the validation images."""
        return data_fingerprint(self.valid, self.source)

    @cached_property
    def split_fingerprint(self) -> str:
        """Return that of which images are trained on and which are held out."""
        return split_fingerprint(self.train, self.valid)


def load_labelled_images(
    data_dir: Path,
    fold: int,
    *,
    debug: bool = False,
    cache_dir: Path | None = None,
) -> LabelledImages:
    """Read labels and folds of a data folder and look for every image.

    Args:
        debug: keep a few images only.
        cache_dir: read the images out of a cache there, of all folds together; it is built first
            if it is not there, on all cores.

    Raises:
        InputError: something is missing or wrong, a box leaves its image, or there is no room for
            the cache.
    """
    folder = DataFolder(data_dir)
    images_dir = folder.images_dir("train")
    records = read_records(folder)
    train, valid = split_records(records, load_folds(folder, records), fold)
    if debug:
        train, valid = train[:N_DEBUG_TRAIN], valid[:N_DEBUG_VALID]
    both = [*train, *valid]
    patients = [record.patient_id for record in both]
    files = open_image_folder(images_dir, patients)
    source: StoredImages = files
    if cache_dir is not None:
        source = open_or_build_cache(patients, files, cache_dir, n_workers=os.cpu_count() or 1)
    fitting = fit_boxes(folder.labels_path, both, read_box_sizes(both, source))
    return LabelledImages(fitting[: len(train)], fitting[len(train) :], images_dir, source)


def training_loader(
    images: LabelledImages,
    options: SampleOptions,
    *,
    batch_size: int,
    n_workers: int | None,
    device: torch.device,
    accumulate: int = 1,
    share: tuple[int, int] = (0, 1),
) -> tuple[DataLoader[Batch], EpochSampler]:
    """Make the loader of the training images, and the sampler that is told the epoch.

    Args:
        batch_size: of all processes together; the loader gives this process's share.
        share: rank and count of the processes.
    """
    dataset = TrainingDataset(images.train, images.source, options)
    sampler = EpochSampler(
        len(dataset), batch_size, options.seed, accumulate=accumulate, share=share
    )
    return _loader(dataset, batch_size // share[1], n_workers, device, sampler, share[1]), sampler


def validation_loader(
    images: LabelledImages,
    options: SampleOptions,
    *,
    batch_size: int,
    n_workers: int | None,
    device: torch.device,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[Batch]:
    """Make the loader of the validation images, every one of this process's share, in order."""
    dataset = ValidationDataset(images.valid, images.source, options)
    return unlabelled_loader(
        dataset, batch_size=batch_size, n_workers=n_workers, device=device, share=share
    )


def unlabelled_loader(
    dataset: Dataset[Sample],
    *,
    batch_size: int,
    n_workers: int | None,
    device: torch.device,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[Batch]:
    """Make the loader of images to predict, every one of this process's share, in order.

    Args:
        batch_size: of this process.
        share: rank and count of the processes; each takes every `count`-th image.
    """
    rank, count = share
    indices = range(rank, len(dataset), count)  # type: ignore[arg-type]
    return _loader(dataset, batch_size, n_workers, device, indices, count)


def _loader(
    dataset: Dataset[Sample],
    batch_size: int,
    n_workers: int | None,
    device: torch.device,
    sampler: Iterable[Any],
    n_processes: int,
) -> DataLoader[Batch]:
    on_cuda = device.type == "cuda"
    if n_workers is None:
        n_cores = os.cpu_count() or 1
        # On a CPU the network needs the cores: half of them prepare images, and mostly wait for it.
        n_workers = n_cores if on_cuda else n_cores // 2
        n_workers = min(max(1, n_workers // n_processes), MAX_WORKERS)
    if n_workers:
        end_workers_at_exit()
    return _Loader(
        _Attempts(dataset),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=n_workers,
        collate_fn=_collate,
        pin_memory=on_cuda,
        worker_init_fn=_prepare_worker,
        persistent_workers=n_workers > 0,
    )


class _Made(NamedTuple):
    """What a worker process sends: a sample or batch, and the odd files that it met.

    The error of a wrong file comes in place of the sample. PyTorch would raise it with the worker's
    traceback as its message.
    """

    content: Any
    remarks: tuple[Remark, ...]


class _Attempts(Dataset[_Made]):
    """A data set that gives errors and remarks along with its samples."""

    def __init__(self, dataset: Dataset[Sample]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: int | tuple[int, int]) -> _Made:
        with heard_remarks() as heard:
            try:
                content: Sample | InputError = self.dataset[key]
            except InputError as error:
                content = error
        return _Made(content, tuple(heard))


def _collate(attempts: Sequence[_Made]) -> _Made:
    remarks = tuple(remark for attempt in attempts for remark in attempt.remarks)
    return _Made(_make_batch([attempt.content for attempt in attempts]), remarks)


def _make_batch(samples: Sequence[Sample | InputError]) -> Batch | InputError:
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    batch = collate(samples)  # type: ignore[arg-type]
    if get_worker_info() is not None:
        try:
            batch.images.share_memory_()  # PyTorch would do it where an error is lost, and wait
        except RuntimeError as error:
            return InputError(
                f"shared memory (/dev/shm) cannot hold a batch: {error}; give it more, as docker "
                f"run --shm-size=8g does, or take a smaller --batch-size or --num-workers 0"
            )
    return batch


class _Loader(DataLoader[Any]):
    """A loader that raises the error that came in place of a batch, and warns of odd files."""

    warned_of: frozenset[Remark] = frozenset()

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        remarks: set[Remark] = set()
        for batch, odd in self._batches():
            if isinstance(batch, InputError):
                raise batch
            remarks.update(odd)
            yield batch
        if not remarks <= self.warned_of:  # once, not in every epoch
            self.warned_of |= remarks
            warnings.warn(summary(remarks), stacklevel=2)

    def _batches(self) -> Iterator[Any]:
        """Yield what the workers send.

        PyTorch's own handler would raise the death of a worker wherever this process happens to be,
        such as in the middle of a step. Here it shows when the next batch is asked for.

        Raises:
            InputError: a worker was killed, or none can be started.
        """
        try:
            with worker_errors():
                if self.num_workers:
                    multiprocessing.Lock()  # where PyTorch fails for want of it, it says more
                # Workers inherit the mask: a signal to all processes kills none that is starting.
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, WORKERS_IGNORE)
                try:
                    batches = super().__iter__()
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if self.num_workers:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            yield from batches
        except (RuntimeError, OSError, EOFError) as error:
            if not (self.num_workers and _tells_of_lost_workers(error)):
                raise
            raise InputError(
                f"a process that prepares batches is lost: {WHY_WORKERS_DIE} "
                f"({str(error) or type(error).__name__}); fewer --num-workers need less memory, "
                f"and with 0 there are none"
            ) from error


def _tells_of_lost_workers(error: Exception) -> bool:
    """Say whether an error of PyTorch's loader is the loss of a worker, not a fault in a data set.

    A batch lies in memory that its worker hands over when the batch is received. To a worker that
    ends just then, the connection is refused, reset, or closed before anything came.
    """
    if isinstance(error, RuntimeError):
        return str(error).startswith(WORKERS_ARE_LOST)
    return not str(error).startswith(RAISED_IN_A_WORKER)


def prepare_process() -> None:
    """Set a process up to do nothing but make samples, one after the other.

    OpenCV starts no threads, and the C library keeps freed memory: to fault in the pages of an
    image's arrays again for each sample takes as long as making it out of the cache.
    """
    cv2.setNumThreads(0)
    keep_freed_memory()


def _prepare_worker(_: int) -> None:
    """Set up a worker, and leave it to the main process when to stop."""
    prepare_process()
    for number in WORKERS_IGNORE:
        signal.signal(number, signal.SIG_IGN)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack the images of samples of one size; boxes stay apart, for their numbers differ.

    Images stay uint8 where all are.
    """
    images = [sample.image for sample in samples]
    if len({image.dtype for image in images}) > 1:
        images = [images_as_float(image) for image in images]
    return Batch(
        images=torch.stack(images),  # (B, 1, S, S)
        targets=tuple(sample.target for sample in samples),
        ids=tuple(sample.patient_id for sample in samples),
        file_sizes=tuple(sample.file_size for sample in samples),
    )
