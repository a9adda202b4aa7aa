"""Images without labels: the challenge's test set, or anybody's own files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from src.datasets.detection_dataset import Sample, shrink_image
from src.datasets.sample_options import SampleOptions
from src.radiographs.image_files import read_any_image
from src.radiographs.image_index import ImageFile
from src.structures import UNKNOWN_CATEGORY, Target


class TestDataset(Dataset[Sample]):
    """Whole images, unchanged but for their size."""

    __test__ = False  # not a test of pytest's

    def __init__(self, files: Sequence[ImageFile], options: SampleOptions) -> None:
        self.files = files
        self.options = options

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        file, options = self.files[index], self.options
        pixels = read_any_image(file.path, grey=options.grey)
        image = shrink_image(pixels, options.img_size, options.reduction, options.shown)
        return Sample(
            image=torch.from_numpy(image)[None],
            target=Target(torch.zeros(0, 4), UNKNOWN_CATEGORY),
            patient_id=file.id,
            file_size=(pixels.shape[0], pixels.shape[1]),
        )
