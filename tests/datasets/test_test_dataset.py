from dataclasses import replace

import numpy as np
import pytest
import torch

from src.datasets.annotations import Record
from src.datasets.detection_dataset import ValidationDataset
from src.datasets.sample_options import SampleOptions
from src.datasets.test_dataset import TestDataset
from src.radiographs.dicom import DicomError
from src.radiographs.image_index import ImageFile
from src.structures import UNKNOWN_CATEGORY, ShownArea
from tests.dicom_files import write_challenge_dicom
from tests.image_folders import image_folder

RNG_SEED = 6
OPTIONS = SampleOptions(img_size=32)


def write_random(path, size=(64, 64)):
    pixels = np.random.default_rng(RNG_SEED).integers(0, 256, size).astype(np.uint8)
    return write_challenge_dicom(path, pixels)


def files(*paths):
    return [ImageFile(path.stem, path) for path in paths]


def test_test_dataset_has_no_truth(tmp_path):
    target = TestDataset(files(write_random(tmp_path / "a.dcm")), OPTIONS)[0].target
    assert (target.boxes_xyxy.shape, target.category) == ((0, 4), UNKNOWN_CATEGORY)


def test_test_dataset_names_images_after_their_files(tmp_path):
    paths = [write_random(tmp_path / name) for name in ("b.c.dcm", "a.dcm")]
    dataset = TestDataset(files(*paths), OPTIONS)
    assert len(dataset) == 2
    assert [dataset[i].patient_id for i in range(2)] == ["b.c", "a"]


@pytest.mark.parametrize(
    ("size", "dtype"), [((1024, 1024), torch.uint8), ((300, 500), torch.float32)]
)
def test_test_dataset_gives_squares_and_keeps_the_files_size(tmp_path, size, dtype):
    sample = TestDataset(files(write_random(tmp_path / "a.dcm", size)), OPTIONS)[0]
    assert (sample.image.shape, sample.image.dtype) == ((1, 32, 32), dtype)
    assert sample.file_size == size


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reduction": "area"},
        {"shown": ShownArea(source_crop=40)},
        {"shown": ShownArea(fit="pad")},
    ],
)
def test_test_dataset_shows_images_as_validation_does(tmp_path, changes):
    path, options = write_random(tmp_path / "a.dcm", (90, 70)), replace(OPTIONS, **changes)
    records = [Record("a", 0, np.zeros((0, 4)))]
    validation = ValidationDataset(records, image_folder(tmp_path), options)
    assert torch.equal(TestDataset(files(path), options)[0].image, validation[0].image)


def test_test_dataset_refuses_a_broken_file(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"no image")
    with pytest.raises(DicomError, match=r"a\.dcm"):
        TestDataset(files(tmp_path / "a.dcm"), OPTIONS)[0]
