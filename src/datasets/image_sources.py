"""Where the pixels of labelled images come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from src.datasets.dicom import read_pixels
from src.datasets.pixels import Pixels


class ImageSource(Protocol):
    """Gives an image by its patientId."""

    def read(self, patient_id: str) -> Pixels:
        """Return (H, W), an array of the caller's own.

        Raises:
            DicomError: the file gives no radiograph.
        """


@dataclass(frozen=True)
class DicomFolder:
    """Reads the image's file each time it is asked for."""

    images_dir: Path

    def path(self, patient_id: str) -> Path:
        return self.images_dir / f"{patient_id}.dcm"

    def read(self, patient_id: str) -> Pixels:
        """Return (H, W), an array of the caller's own."""
        return read_pixels(self.path(patient_id))
