"""Images without labels: the challenge's test set, or any folder of DICOM files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from src.datasets.annotations import AnnotationsError
from src.datasets.detection_dataset import Sample, SampleOptions, shrink_image
from src.datasets.dicom import read_image
from src.structures import UNKNOWN_CATEGORY, Target


class TestDataset(Dataset[Sample]):
    """Whole images, unchanged but for their size; the file's name is the patientId."""

    __test__ = False  # not a test of pytest's

    def __init__(self, paths: Sequence[Path], options: SampleOptions) -> None:
        self.paths = paths
        self.options = options

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path, options = self.paths[index], self.options
        source = read_image(path)
        image = shrink_image(
            source, options.img_size, options.reduction, source_crop=options.source_crop
        )
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(image))[None],
            target=Target(torch.zeros(0, 4), UNKNOWN_CATEGORY),
            patient_id=path.stem,
            file_size=(source.shape[0], source.shape[1]),
        )


def find_dicoms(folder: Path) -> list[Path]:
    """List the .dcm files of a folder, sorted by name.

    Raises:
        AnnotationsError: there are none.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".dcm")
    if not paths:
        raise AnnotationsError(f"{folder}: holds no .dcm files")
    return paths
