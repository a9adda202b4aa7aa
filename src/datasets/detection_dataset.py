"""Labelled images as training and validation samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from src.datasets.annotations import Record
from src.datasets.augmentations import augment_pixels, draw_crop
from src.datasets.box_sizes import CHALLENGE_SIZE
from src.datasets.data_folder import ImageSource
from src.datasets.sample_options import AUGMENTATION_LEVELS, Reduction, SampleOptions
from src.datasets.transforms import (
    FloatArray,
    central_crop,
    drop_boxes_outside,
    reduce_by_area,
    take_every_nth,
    warp_boxes,
    warp_image,
)
from src.radiographs.pixels import FloatImage, Pixels, as_float
from src.structures import WHOLE, ShownArea, Target, images_as_float
from src.system.errors import InputError


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, ready for the network.

    Attributes:
        image: (1, S, S) uint8 that stands for value / 255, or float32 in [0, 1].
        target: boxes in pixels of `image`.
        patient_id: also the name of the image's file.
        file_size: height and width of the image in its file, pixels.
    """

    image: Tensor
    target: Target
    patient_id: str
    file_size: tuple[int, int]

    def picture(self) -> FloatImage:
        """Return the image as (S, S) float32 in [0, 1]."""
        picture: FloatImage = images_as_float(self.image[0]).numpy()
        return picture


class LabelledDataset(Dataset[Sample]):
    """What training and validation samples are made of."""

    def __init__(
        self, records: Sequence[Record], source: ImageSource, options: SampleOptions
    ) -> None:
        self.records = records
        self.source = source
        self.options = options

    def __len__(self) -> int:
        return len(self.records)


class TrainingDataset(LabelledDataset):
    """Augmented samples; the random numbers of one depend on (seed, epoch, index) alone.

    Differs from the original, whose worker processes drew from copies of one random stream.
    """

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Make the sample of (epoch, index)."""
        epoch, index = key
        record, options = self.records[index], self.options
        level = AUGMENTATION_LEVELS[options.augmentation_level]
        rng = np.random.default_rng((options.seed, epoch, index))
        pixels = self.source.read(record.patient_id, grey=options.grey)
        if not level.eight_bit:
            pixels = as_float(pixels)
        file_size = (pixels.shape[0], pixels.shape[1])
        crop = draw_crop(
            file_size,
            options.img_size,
            level,
            rng,
            hflip=options.hflip,
            shown=options.shown,
        )
        crop_of_pixels = crop
        if _averages(options.reduction, pixels, options.img_size, options.shown):
            pixels, crop_of_pixels = reduce_by_area(pixels, crop)
        image = augment_pixels(warp_image(pixels, crop_of_pixels), level, rng)
        boxes = warp_boxes(record.boxes_xywh, crop, options.box_points)
        boxes = drop_boxes_outside(boxes, options.img_size)
        if options.clip_boxes:
            boxes = boxes.clip(0, options.img_size)
        return _make_sample(record, image, boxes, file_size)


class ValidationDataset(LabelledDataset):
    """Whole images, unchanged but for their size."""

    def __getitem__(self, index: int) -> Sample:
        record, options = self.records[index], self.options
        pixels = self.source.read(record.patient_id, grey=options.grey)
        image = shrink_image(pixels, options.img_size, options.reduction, options.shown)
        size = (pixels.shape[0], pixels.shape[1])
        crop = central_crop(size, options.img_size, options.shown)
        return _make_sample(record, image, warp_boxes(record.boxes_xywh, crop), size)


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
                f"processes: --batch-size is a multiple of {self.count}, and accumulate times it "
                f"at most the number of images"
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
    image: Pixels,
    size: int,
    reduction: Reduction = "subsample",
    shown: ShownArea = WHOLE,
) -> Pixels:
    """Squeeze the area of an image that is shown into a square.

    Args:
        image: (H, W).

    Returns:
        A new (size, size); of every n-th pixel, as image[::2, ::2] for 1024 -> 512, of the type of
        `image`; float32 where pixels have to be mixed.
    """
    crop = central_crop((image.shape[0], image.shape[1]), size, shown)
    if _averages(reduction, image, size, shown):
        image, crop = reduce_by_area(as_float(image), crop)
    part = take_every_nth(image, crop)
    return warp_image(as_float(image), crop) if part is None else part.copy()


def _averages(reduction: Reduction, image: Pixels, size: int, shown: ShownArea) -> bool:
    """Say whether an image shrinks by the mean of areas."""
    if reduction != "auto":
        return reduction == "area"
    return image.shape != CHALLENGE_SIZE or shown.size(CHALLENGE_SIZE)[0] % size != 0


def _make_sample(
    record: Record, image: Pixels, boxes_xyxy: FloatArray, file_size: tuple[int, int]
) -> Sample:
    boxes = torch.from_numpy(boxes_xyxy.astype(np.float32))
    target = Target(boxes, record.category, record.group_id)
    return Sample(torch.from_numpy(image)[None], target, record.patient_id, file_size)
