"""Where a data folder keeps its labels and images, and who reads an image by its patientId."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from src.datasets.tables import AnnotationsError
from src.radiographs.dicom import read_pixels
from src.radiographs.pixels import Pixels
from src.structures import Grey


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

    def images_dir(self, split: str) -> Path:
        """Return the folder of the `train` or `test` images: Kaggle's name, or the short one.

        Raises:
            AnnotationsError: there is neither.
        """
        self.check()
        kaggle = self.root / f"stage_{self.stage}_{split}_images"
        for folder in (kaggle, self.root / split):
            if folder.is_dir():
                return folder
        raise AnnotationsError(f"{kaggle}: no such folder of images")


class ImageSource(Protocol):
    """Gives an image by its patientId."""

    def read(self, patient_id: str, *, grey: Grey = "viewer") -> Pixels:
        """Return (H, W), an array of the caller's own.

        Args:
            grey: how stored values become grey, where they are not plain 8-bit.

        Raises:
            DicomError: the file gives no radiograph.
        """


@dataclass(frozen=True)
class DicomFolder:
    """Reads the image's file each time it is asked for."""

    images_dir: Path

    def path(self, patient_id: str) -> Path:
        return self.images_dir / f"{patient_id}.dcm"

    def read(self, patient_id: str, *, grey: Grey = "viewer") -> Pixels:
        """Return (H, W), an array of the caller's own."""
        return read_pixels(self.path(patient_id), grey=grey)
