"""The ways to make a training sample that the benchmark of the data path holds side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
import simplejpeg
import torch
from pydicom.encaps import generate_frames
from torch.utils.data import Dataset

from src.datasets.annotations import Record
from src.datasets.augmentations import augment_pixels, draw_crop
from src.datasets.detection_dataset import Sample, TrainingDataset
from src.datasets.loaders import LabelledImages
from src.datasets.sample_options import AUGMENTATION_LEVELS, AugmentationLevel, SampleOptions
from src.datasets.transforms import warp_image
from src.radiographs.pixels import Pixels
from src.structures import Target
from tests import plain_ways

PLAIN = "plain: pydicom, skimage, numpy"
PLAIN_PILLOW = "plain, decoded by Pillow"
ALBUMENTATIONS = "albumentations, decoded by cv2"
FROM_DICOM = "this project from DICOM"
FROM_CACHE = "this project from its cache"

Way = Callable[[int], object]  # makes the sample of an index


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        files: the images, read from their DICOM files; those of training count.
        cached: the same, read out of the cache.
        options: how samples are made.
    """

    files: LabelledImages
    cached: LabelledImages
    options: SampleOptions

    @property
    def records(self) -> Sequence[Record]:
        return self.files.train

    @property
    def level(self) -> AugmentationLevel:
        return AUGMENTATION_LEVELS[self.options.augmentation_level]

    def paths(self) -> list[Path]:
        return [self.files.images_dir / f"{record.patient_id}.dcm" for record in self.records]


class PlainDataset(Dataset[Sample]):
    """Samples made as one would write it down."""

    def __init__(self, workload: Workload, plugin: str = "") -> None:
        self.workload = workload
        self.paths = workload.paths()
        self.plugin = plugin

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        pixels = plain_ways.read_dicom(self.paths[index], self.plugin)
        rng = np.random.default_rng((0, 0, index))
        size, level = self.workload.options.img_size, self.workload.level
        image = plain_ways.make_sample(pixels, size, level, rng)
        target = Target(torch.zeros(0, 4), 0)
        return Sample(torch.from_numpy(image.astype(np.uint8))[None], target, "", pixels.shape)


def sample_ways(workload: Workload) -> dict[str, Way]:
    """Return every way to make the sample of an index, by its name; the plain one first."""
    ours, cached = (
        TrainingDataset(images.train, images.source, workload.options)
        for images in (workload.files, workload.cached)
    )
    others: dict[str, Way] = {
        PLAIN: PlainDataset(workload).__getitem__,
        PLAIN_PILLOW: PlainDataset(workload, "pillow").__getitem__,
    }
    augment = albumentations_way(workload)
    return (
        others
        | ({ALBUMENTATIONS: augment} if augment else {})
        | {
            "decoding alone": decoding_way(workload),
            FROM_DICOM: lambda i: ours[0, i],
            FROM_CACHE: lambda i: cached[0, i],
        }
    )


def decoding_way(workload: Workload) -> Way:
    """Return the decoder of frames that are in memory already."""
    frames = [jpeg_frame(path) for path in workload.paths()]
    return lambda i: simplejpeg.decode_jpeg(frames[i], colorspace="GRAY")


def albumentations_way(workload: Workload) -> Way | None:
    """Return what comes closest to level 20 there, None if the library is not installed."""
    try:
        import albumentations as library
    except ImportError:
        return None
    size = workload.options.img_size
    steps = [
        library.Resize(size, size),
        library.Affine(
            scale=(0.86, 1.16), translate_px=(-16, 16), rotate=(-10, 10), shear=(-7, 7), p=1
        ),
        library.RandomGamma((75, 133), p=1),
        library.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2), p=0.5),
        library.GaussNoise(std_range=(0, 0.04), p=0.5),
    ]
    pipeline = library.Compose(steps, bbox_params=library.BboxParams("coco", label_fields=[]))
    paths = workload.paths()

    def augment(i: int) -> object:
        content = np.frombuffer(jpeg_frame(paths[i]), np.uint8)
        pixels = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
        return pipeline(image=pixels, bboxes=workload.records[i].boxes_xywh)

    return augment


def jpeg_frame(path: Path) -> bytes:
    """Read the frame of a DICOM file with pydicom."""
    return next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))


def growing_ways(workload: Workload) -> dict[str, Way]:
    """Return ways of which each does a part more than one before it."""
    read, copy = workload.files.source.read, workload.cached.source.read
    names = [record.patient_id for record in workload.records]
    sizes = [workload.files.source.read(name).shape for name in names]
    size, level = workload.options.img_size, workload.level
    crops = [draw_crop(s, size, level, np.random.default_rng(i)) for i, s in enumerate(sizes)]

    def warp(i: int) -> Pixels:
        return warp_image(copy(names[i]), crops[i])

    def change(**parts: float) -> Way:
        only = AugmentationLevel(eight_bit=True, gamma=level.gamma, **parts)
        return lambda i: augment_pixels(warp(i), only, np.random.default_rng(i))

    return {
        "decode": decoding_way(workload),
        "read": lambda i: read(names[i]),
        "copy": lambda i: copy(names[i]),
        "warp": warp,
        "gamma": change(),
        "blur": change(blur_p=1.0, blur_sigma=level.blur_sigma),
        "noise": change(noise_p=1.0, noise_sigma=level.noise_sigma),
    }
