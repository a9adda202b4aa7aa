"""The images to predict: a validation fold, the test images, anybody's own files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch.utils.data import Dataset

from src.datasets.annotations import Record
from src.datasets.data_folder import DataFolder
from src.datasets.detection_dataset import Sample, SampleOptions, ValidationDataset
from src.datasets.fingerprint import FileState, data_fingerprint, images_fingerprint
from src.datasets.loaders import LabelledImages
from src.datasets.patient_ids import fault_of_patient_ids, patient_of_file
from src.datasets.tables import read_sample_ids
from src.datasets.test_dataset import TestDataset
from src.radiographs.image_files import read_any_image, split_unreadable
from src.radiographs.image_index import ImageFile, ImageIndex, as_text, index_images
from src.radiographs.pixels import Pixels
from src.system.errors import InputError
from src.system.records import cut_text


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images to predict.

    Attributes:
        place: the folder or the file where they lie.
        ids: of the images, in order: patientIds or names of files.
        named_by: which of these the ids are.
        files: their names, as paths below `place`.
        dataset: makes their samples.
        fingerprint: of the files, and of their labels where they have any.
        read: gives the pixels of the file of an image, by its index.
        sample_path: a sample submission, whose order a submission follows; None keeps the images'.
        advice: what helps where an image cannot be read.

    Raises:
        InputError: two images have one id.
    """

    place: Path
    ids: tuple[str, ...]
    named_by: Literal["patient", "file"]
    files: tuple[str, ...]
    dataset: Callable[[SampleOptions], Dataset[Sample]]
    fingerprint: str
    read: Callable[[int], Pixels]
    sample_path: Path | None = None
    advice: str = ""

    def __post_init__(self) -> None:
        seen: dict[str, int] = {}
        for i, name in enumerate(self.ids):
            if seen.setdefault(name, i) != i:
                first, second = (cut_text(self.files[k]) for k in (seen[name], i))
                raise InputError(
                    f"{self.place}: {first} and {second} would both be called {cut_text(name)}"
                )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def patient_ids(self) -> list[str]:
        """Return the ids that submissions name the images by, "" where one is no patient's."""
        if self.named_by == "patient":
            return list(self.ids)
        return [patient_of_file(name) for name in self.files]

    @property
    def submission_fault(self) -> str | None:
        """Say why no submission can name the images, None where one can."""
        return fault_of_patient_ids(self.patient_ids)


def labelled_image_set(images: LabelledImages, records: Sequence[Record]) -> ImageSet:
    """Take some of the labelled images, such as those of the validation fold."""
    ids = tuple(record.patient_id for record in records)
    paths = [images.source.image_path(patient) for patient in ids]
    return ImageSet(
        place=images.images_dir.resolve(),
        ids=ids,
        named_by="patient",
        files=tuple(path.relative_to(images.images_dir).as_posix() for path in paths),
        dataset=lambda options: ValidationDataset(records, images.source, options),
        fingerprint=data_fingerprint(records, images.source),
        read=lambda image: images.source.read(ids[image]),
    )


def test_image_set(
    data_dir: Path, *, skip_unreadable: bool = False, n_workers: int | None = None
) -> ImageSet:
    """Take the test images of a data folder; their ids are patientIds.

    The sample submission, where there is one, says which images go by their path.

    Args:
        skip_unreadable: read every file first, and name and leave out those that are no
            radiographs.
        n_workers: processes that read them.

    Raises:
        InputError: there are none, or two have one id.
    """
    folder = DataFolder(data_dir)
    index = index_images(folder.images_dir("test"))
    sample_path = folder.sample_submission_path if folder.sample_submission_path.exists() else None
    named = read_sample_ids(sample_path) if sample_path else []
    names = index.names_by_id(named)
    files = [ImageFile(patient, index.root / name) for patient, name in names.items()]
    return _unlabelled_set(index, files, skip_unreadable, n_workers, sample_path=sample_path)


def own_image_set(place: Path, *, skip_unreadable: bool, n_workers: int | None) -> ImageSet:
    """Take an image file, or all that lie below a folder; their ids are their names.

    Args:
        skip_unreadable: read every file first, and name and leave out those that are no
            radiographs.
        n_workers: processes that read them.

    Raises:
        InputError: there are none, or none that is readable.
    """
    index = index_images(place)
    images = _unlabelled_set(index, index.files(), skip_unreadable, n_workers)
    return replace(images, place=place.resolve(), named_by="file")


def _unlabelled_set(
    index: ImageIndex,
    files: Sequence[ImageFile],
    skip_unreadable: bool,
    n_workers: int | None,
    *,
    sample_path: Path | None = None,
) -> ImageSet:
    """Take files without labels, as patients' images; say what is left out."""
    if skip_unreadable:
        files, unreadable = split_unreadable(files, n_workers or 1)
        for file in [*index.left_out, *unreadable]:
            print(f"skipped: {file.cause}", file=sys.stderr)
        if not files:
            raise InputError(f"{index.root}: none of its {len(unreadable)} files is readable")
    else:
        index.warn()
    return ImageSet(
        place=index.root.resolve(),
        ids=tuple(file.id for file in files),
        named_by="patient",
        files=tuple(as_text(file.path.relative_to(index.root).as_posix()) for file in files),
        dataset=lambda options: TestDataset(files, options),
        fingerprint=images_fingerprint({file.id: FileState.of(file.path) for file in files}),
        read=lambda image: read_any_image(files[image].path),
        sample_path=sample_path,
        advice="--skip-unreadable leaves such files out",
    )
