"""The data folder that eda.py looks at, its labels, and the choice of the images to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from src.datasets.annotations import Record, read_records
from src.datasets.box_sizes import (
    Size,
    Sizes,
    scaled_boxes,
    sizes_of_labelled,
    usual_size,
)
from src.datasets.data_folder import DataFolder, ImageFolder, open_image_folder
from src.datasets.sample_options import AUGMENTATION_LEVELS
from src.datasets.tables import AnnotationsError
from src.datasets.transforms import FloatArray
from src.radiographs.pixels import FloatImage, as_float
from src.system.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the figures are drawn from.

    Attributes:
        records: of every labelled image.
        level: of augmentation.
        seed: of the choice of images and of the augmentations.
        patient_id: the image to show; None lets the seed choose.
    """

    folder: DataFolder
    records: Sequence[Record]
    level: int
    seed: int
    patient_id: str | None

    @cached_property
    def sizes(self) -> Sizes:
        """Return the sizes of the images that have boxes."""
        return sizes_of_labelled(self.folder, self.records)

    @property
    def usual_size(self) -> Size:
        """Return the size that most images with boxes have: height and width, pixels."""
        return usual_size(self.sizes)

    def boxes_xywh(self) -> FloatArray:
        """Return all boxes, (N, 4), in images stretched to the usual size.

        Raises:
            AnnotationsError: there are none.
        """
        size = self.usual_size
        boxes = np.concatenate([scaled_boxes(each, self.sizes, size) for each in self.records])
        if len(boxes) == 0:
            raise AnnotationsError(f"{self.folder.labels_path}: holds no boxes")
        return boxes

    def choose(self, records: Sequence[Record]) -> Record:
        """Return the patient's record if it is among these, or else one that the seed chooses."""
        asked = [record for record in records if record.patient_id == self.patient_id]
        chosen = int(np.random.default_rng(self.seed).integers(len(records)))
        return asked[0] if asked else records[chosen]

    def shown_record(self) -> Record:
        """Return the patient's record, or else a chosen one, with boxes if there are any."""
        with_boxes = [record for record in self.records if len(record.boxes_xywh)]
        return self.choose(self.records if self.patient_id else with_boxes or self.records)

    @cached_property
    def images(self) -> ImageFolder:
        """Return the images of the labelled patients, as far as they are there."""
        patients = [record.patient_id for record in self.records]
        return open_image_folder(self.folder.images_dir("train"), patients, needs_all=False)

    def read_image(self, record: Record) -> FloatImage:
        """Read the image of a record.

        Raises:
            AnnotationsError: it is not there.
        """
        return as_float(self.images.read(record.patient_id))


def read_subject(data_dir: Path, *, level: int, seed: int, patient_id: str | None) -> Subject:
    """Read the labels of a data folder and check what is to be shown.

    Raises:
        InputError: the labels are wrong, or there is no such level or patient.
    """
    if level not in AUGMENTATION_LEVELS:
        raise InputError(
            f"unknown level {level}; one of {', '.join(map(str, AUGMENTATION_LEVELS))}"
        )
    folder = DataFolder(data_dir)
    records = read_records(folder)
    if patient_id not in {None, *(record.patient_id for record in records)}:
        raise InputError(f"{folder.labels_path}: has no patient {patient_id}")
    return Subject(folder=folder, records=records, level=level, seed=seed, patient_id=patient_id)
