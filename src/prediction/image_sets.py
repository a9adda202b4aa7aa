"""The images to predict: a validation fold, the test images, anybody's own files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from src.datasets.annotations import Record
from src.datasets.data_folder import DataFolder
from src.datasets.detection_dataset import Sample, SampleOptions, ValidationDataset
from src.datasets.loaders import LabelledImages
from src.datasets.test_dataset import TestDataset
from src.radiographs.image_files import (
    ImageFile,
    find_challenge_images,
    find_image_files,
    ids_are_patients,
    split_unreadable,
)
from src.system.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images to predict.

    Attributes:
        place: the folder or the file where they lie.
        ids: of the images, in order.
        dataset: makes their samples.
        are_patients: whether the ids are patientIds, as a submission needs them.
        sample_path: a sample submission, whose order a submission follows; None keeps the images'.
        advice: what helps where an image cannot be read.
    """

    place: Path
    ids: tuple[str, ...]
    dataset: Callable[[SampleOptions], Dataset[Sample]]
    are_patients: bool = True
    sample_path: Path | None = None
    advice: str = ""

    def __len__(self) -> int:
        return len(self.ids)


def labelled_image_set(images: LabelledImages, records: Sequence[Record]) -> ImageSet:
    """Take some of the labelled images, such as those of the validation fold."""
    return ImageSet(
        place=images.images_dir.resolve(),
        ids=tuple(record.patient_id for record in records),
        dataset=lambda options: ValidationDataset(records, images.source, options),
    )


def test_image_set(data_dir: Path) -> ImageSet:
    """Take the test images of a data folder.

    Raises:
        InputError: there are none.
    """
    folder = DataFolder(data_dir)
    place = folder.images_dir("test")
    sample_path = folder.sample_submission_path
    return _files_image_set(
        place,
        find_challenge_images(place),
        sample_path=sample_path if sample_path.exists() else None,
    )


def own_image_set(place: Path, *, skip_unreadable: bool, n_workers: int | None) -> ImageSet:
    """Take an image file, or all that lie below a folder.

    Args:
        skip_unreadable: read every file first, and name and leave out those that are no
            radiographs.
        n_workers: processes that read them.

    Raises:
        InputError: there are none, or none that is readable.
    """
    files = find_image_files(place)
    if skip_unreadable:
        files, unreadable = split_unreadable(files, n_workers or 1)
        for file in unreadable:
            print(f"skipped: {file.cause}", file=sys.stderr)
        if not files:
            raise InputError(f"{place}: none of its {len(unreadable)} files is readable")
    return _files_image_set(place, files, advice="--skip-unreadable leaves such files out")


def _files_image_set(
    place: Path, files: Sequence[ImageFile], *, sample_path: Path | None = None, advice: str = ""
) -> ImageSet:
    return ImageSet(
        place=place.resolve(),
        ids=tuple(file.id for file in files),
        dataset=lambda options: TestDataset(files, options),
        are_patients=ids_are_patients(files),
        sample_path=sample_path,
        advice=advice,
    )
