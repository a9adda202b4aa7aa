"""Labelled images as training and validation samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from src.datasets.annotations import AnnotationsError, Record
from src.datasets.augmentations import (
    AUGMENTATION_LEVELS,
    FloatImage,
    augment_pixels,
    draw_crop,
)
from src.datasets.dicom import read_image
from src.datasets.transforms import (
    BoxPoints,
    Crop,
    FloatArray,
    central_crop,
    drop_boxes_outside,
    warp_boxes,
    warp_image,
)
from src.errors import InputError
from src.structures import Target

Reduction = Literal["subsample", "area"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, ready for the network.

    Attributes:
        image: (1, S, S) float32 in [0, 1].
        target: boxes in pixels of `image`.
        patient_id: also the name of the image's file.
        file_size: height and width of the image in its file, pixels.
    """

    image: Tensor
    target: Target
    patient_id: str
    file_size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """How samples are made.

    Attributes:
        img_size: side of the network input, pixels.
        source_crop: side of the central square of the file that is shown; None shows all.
        augmentation_level: a key of `AUGMENTATION_LEVELS`; for training samples.
        box_points: which points of a box are carried through the crop.
        hflip: mirror every second training sample.
        clip_boxes: cut boxes off at the border of the crop.
        reduction: how validation images shrink: every n-th pixel, the original's way, or the mean
            over the area.
        seed: of all augmentations.
    """

    img_size: int
    source_crop: int | None = None
    augmentation_level: int = 10
    box_points: BoxPoints = "thirds"
    hflip: bool = False
    clip_boxes: bool = False
    reduction: Reduction = "subsample"
    seed: int = 0


class TrainingDataset(Dataset[Sample]):
    """Augmented samples; the random numbers of one depend on (seed, epoch, index) alone.

    Differs from the original, whose worker processes drew from copies of one random stream.
    """

    def __init__(self, records: Sequence[Record], images_dir: Path, options: SampleOptions) -> None:
        self.records = records
        self.images_dir = images_dir
        self.options = options
        self.level = AUGMENTATION_LEVELS[options.augmentation_level]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Make the sample of (epoch, index)."""
        epoch, index = key
        record, options = self.records[index], self.options
        rng = np.random.default_rng((options.seed, epoch, index))
        source = read_image(self.images_dir / f"{record.patient_id}.dcm")
        file_size = (source.shape[0], source.shape[1])
        crop = draw_crop(
            file_size,
            options.img_size,
            self.level,
            rng,
            hflip=options.hflip,
            source_crop=options.source_crop,
        )
        image = augment_pixels(warp_image(source, crop), self.level, rng)
        boxes = warp_boxes(record.boxes_xywh, crop, options.box_points)
        boxes = drop_boxes_outside(boxes, options.img_size)
        if options.clip_boxes:
            boxes = boxes.clip(0, options.img_size)
        return _make_sample(record, image, boxes, file_size)


class ValidationDataset(Dataset[Sample]):
    """Whole images, unchanged but for their size."""

    def __init__(self, records: Sequence[Record], images_dir: Path, options: SampleOptions) -> None:
        self.records = records
        self.images_dir = images_dir
        self.options = options

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record, options = self.records[index], self.options
        source = read_image(self.images_dir / f"{record.patient_id}.dcm")
        image = shrink_image(
            source, options.img_size, options.reduction, source_crop=options.source_crop
        )
        file_size = (source.shape[0], source.shape[1])
        crop = central_crop(file_size, options.img_size, options.source_crop)
        return _make_sample(record, image, warp_boxes(record.boxes_xywh, crop), file_size)


class EpochSampler(Sampler[tuple[int, int]]):
    """The (epoch, index) keys of one epoch, shuffled by (seed, epoch) alone.

    Kept from the original: an epoch is cut down to whole steps. The images left over differ
    from epoch to epoch.

    Attributes:
        epoch: whose keys come next.
        n_done: batches of that epoch that were trained already and are left out.
    """

    def __init__(
        self,
        n_samples: int,
        batch_size: int,
        seed: int,
        *,
        accumulate: int = 1,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Lay out the epochs.

        Args:
            batch_size: of all processes together.
            accumulate: batches to a step.
            share: rank and count of the processes that split every batch.

        Raises:
            InputError: the batches cannot be split evenly.
        """
        self.n_samples, self.batch_size, self.seed = n_samples, batch_size, seed
        self.rank, self.count = share
        n_step = batch_size * accumulate
        self.n_kept = n_samples - n_samples % n_step or n_samples
        if batch_size % self.count or (self.count > 1 and n_samples < n_step):
            raise InputError(
                f"{n_samples} images in batches of {batch_size} cannot be shared by {self.count} "
                f"processes: --batch-size is a multiple of {self.count}, and --accumulate times "
                f"it at most the number of images"
            )
        self.epoch = 0
        self.n_done = 0

    @property
    def n_batches(self) -> int:
        """Return the batches of a whole epoch."""
        return -(-self.n_kept // self.batch_size)

    def __len__(self) -> int:
        return (self.n_kept - min(self.n_kept, self.n_done * self.batch_size)) // self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n_samples)
        left = order[: self.n_kept][self.n_done * self.batch_size :]
        n_own = self.batch_size // self.count
        return iter(
            [
                (self.epoch, int(index))
                for position, index in enumerate(left)
                if self.count == 1 or position % self.batch_size // n_own == self.rank
            ]
        )


def shrink_image(
    image: FloatImage,
    size: int,
    reduction: Reduction = "subsample",
    *,
    source_crop: int | None = None,
) -> FloatImage:
    """Squeeze a whole image, or its central square of side `source_crop`, into a square.

    Args:
        image: (H, W) float32.

    Returns:
        (size, size) float32; by "subsample" image[::2, ::2] for 1024 -> 512.
    """
    crop = central_crop((image.shape[0], image.shape[1]), size, source_crop)
    if reduction == "subsample":
        return warp_image(image, crop)
    # Every pixel counts: reduce the image as a whole, then cut out at the new scale.
    height, width = (
        round(side * scale) for side, scale in zip(image.shape, crop.scale_xy[::-1], strict=True)
    )
    smaller = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    return warp_image(smaller, Crop(size, (width / 2, height / 2), (1.0, 1.0)))


def check_images_exist(records: Sequence[Record], images_dir: Path) -> None:
    """Look for every image before the work begins.

    Raises:
        AnnotationsError: some are missing; the first is named and the rest counted.
    """
    present = {path.name for path in images_dir.iterdir()}
    missing = [r.patient_id for r in records if f"{r.patient_id}.dcm" not in present]
    if missing:
        more = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
        raise AnnotationsError(
            f"{images_dir / missing[0]}.dcm: no such file;{more} of "
            f"{len(records)} labelled ones missing"
        )


def _make_sample(
    record: Record, image: FloatImage, boxes_xyxy: FloatArray, file_size: tuple[int, int]
) -> Sample:
    target = Target(torch.from_numpy(boxes_xyxy.astype(np.float32)), record.category)
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    return Sample(tensor, target, record.patient_id, file_size)
