"""Where a data folder keeps its labels and images, and who reads an image by its patientId."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from src.datasets.tables import AnnotationsError
from src.radiographs.image_files import read_any_image, read_sizes
from src.radiographs.image_index import index_images, without_ending
from src.radiographs.pixels import Pixels
from src.structures import Grey
from src.system.errors import InputError
from src.system.records import cut_text


@dataclass(frozen=True)
class DataFolder:
    """Where the files of the challenge's archive lie.

    Attributes:
        root: the unpacked archive, of stage 2 or of stage 1.
    """

    root: Path

    @property
    def stage(self) -> int:
        """Return 2, or 1 where only stage 1 is there."""
        only_stage_1 = (
            not (self.root / "stage_2_train_labels.csv").exists()
            and (self.root / "stage_1_train_labels.csv").exists()
        )
        return 1 if only_stage_1 else 2

    @property
    def labels_path(self) -> Path:
        return self.root / f"stage_{self.stage}_train_labels.csv"

    @property
    def classes_path(self) -> Path:
        return self.root / f"stage_{self.stage}_detailed_class_info.csv"

    @property
    def sample_submission_path(self) -> Path:
        return self.root / f"stage_{self.stage}_sample_submission.csv"

    @property
    def folds_path(self) -> Path:
        return self.root / "folds.csv"

    def check(self) -> None:
        """Make sure that the folder is there.

        Raises:
            AnnotationsError: it is not; the message says how to get one.
        """
        if not self.root.is_dir():
            raise AnnotationsError(
                f"{self.root}: no such data folder; scripts/dataset_download.sh fetches the "
                f"challenge's, scripts/make_demo_dataset.py makes one to try"
            )

    def has_images(self, split: str) -> bool:
        """Say whether there is a folder of the `train` or `test` images."""
        return any(folder.is_dir() for folder in self._image_dirs(split))

    def _image_dirs(self, split: str) -> tuple[Path, Path]:
        """Return where images may lie: under Kaggle's name, or the short one."""
        return self.root / f"stage_{self.stage}_{split}_images", self.root / split

    def images_dir(self, split: str) -> Path:
        """Return the folder of the `train` or `test` images: Kaggle's name, or the short one.

        Where there are both, an empty one gives way to the other.

        Raises:
            AnnotationsError: there is neither.
        """
        self.check()
        usual, short = self._image_dirs(split)
        there = [folder for folder in (usual, short) if folder.is_dir()]
        if not there:
            raise AnnotationsError(f"{usual}: no such folder of images, nor {short}")
        return next((folder for folder in there if not _is_empty(folder)), there[0])


def _is_empty(folder: Path) -> bool:
    """Say whether a folder holds hidden files alone, or none."""
    try:
        return all(path.name.startswith(".") for path in folder.iterdir())
    except OSError:  # who lists its images says why
        return False


class ImageSource(Protocol):
    """Gives an image by its patientId."""

    def read(self, patient_id: str, *, grey: Grey = "viewer") -> Pixels:
        """Return (H, W), an array of the caller's own.

        Args:
            grey: how stored values become grey, where they are not plain 8-bit.

        Raises:
            InputError: the file gives no radiograph.
        """


class StoredImages(ImageSource, Protocol):
    """Gives an image by its patientId, and tells its file."""

    def image_path(self, patient_id: str) -> Path:
        """Return the image's file.

        Raises:
            AnnotationsError: there is none.
        """

    def read_sizes(self, patient_ids: Sequence[str]) -> list[tuple[int, int]]:
        """Return the height and width of each image, pixels.

        Raises:
            InputError: a file gives no radiograph.
        """


@dataclass(frozen=True)
class ImageFolder:
    """Reads the image's file each time it is asked for.

    Attributes:
        images_dir: where the images lie.
        names: patientId -> path below that folder.
    """

    images_dir: Path
    names: Mapping[str, str]

    def image_path(self, patient_id: str) -> Path:
        """Return the image's file.

        Raises:
            AnnotationsError: there is none.
        """
        name = self.names.get(patient_id)
        if name is None:
            raise AnnotationsError(describe_missing(self.images_dir, patient_id))
        return self.images_dir / name

    def read_sizes(self, patient_ids: Sequence[str]) -> list[tuple[int, int]]:
        """Return the height and width of each image, pixels."""
        return read_sizes([self.image_path(patient) for patient in patient_ids])

    def read(self, patient_id: str, *, grey: Grey = "viewer") -> Pixels:
        """Return (H, W), an array of the caller's own."""
        return read_any_image(self.image_path(patient_id), grey=grey)


def open_image_folder(
    images_dir: Path, patient_ids: Collection[str], *, needs_all: bool = True
) -> ImageFolder:
    """Look for the images of some patients, and warn of what cannot be used.

    Args:
        needs_all: refuse a folder that lacks any of them.

    Raises:
        InputError: two files have one id, or images are missing; the first is named and the rest
            counted.
    """
    try:
        index = index_images(images_dir)
    except InputError as error:
        raise AnnotationsError(str(error)) from error
    index.warn()
    names = index.names_by_id(patient_ids, only_named=True)
    missing = [patient for patient in patient_ids if patient not in names]
    if missing and needs_all:
        more = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
        left_out = {without_ending(path.name): cause for path, cause in index.left_out}
        cause = left_out.get(missing[0]) or describe_missing(images_dir, missing[0])
        raise AnnotationsError(f"{cause};{more} of {len(patient_ids)} labelled ones missing")
    return ImageFolder(images_dir, names)


def describe_missing(images_dir: Path, patient_id: str) -> str:
    """Say that a patient has no image."""
    path = images_dir / cut_text(patient_id)
    return f"{path}.dcm: no such file, nor a PNG or JPEG file of this name"
