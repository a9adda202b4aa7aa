from dataclasses import replace

import torch

from src.datasets.detection_dataset import Sample
from src.datasets.loaders import collate
from src.structures import Target


def make_samples():
    return [
        Sample(torch.full((1, 8, 8), i / 4), Target(torch.rand(i, 4), i), f"p{i}", (100 + i, 200))
        for i in range(3)
    ]


def test_collate_stacks_images_in_order():
    batch = collate(make_samples())
    assert (batch.images.shape, batch.images.dtype) == ((3, 1, 8, 8), torch.float32)
    assert batch.images[:, 0, 0, 0].tolist() == [0, 0.25, 0.5]
    assert batch.image_size == (8, 8)


def test_collate_keeps_the_boxes_of_each_image_apart():
    samples = make_samples()
    batch = collate(samples)
    assert [target.boxes_xyxy.shape for target in batch.targets] == [(0, 4), (1, 4), (2, 4)]
    assert all(
        torch.equal(target.boxes_xyxy, sample.target.boxes_xyxy)
        for target, sample in zip(batch.targets, samples, strict=True)
    )
    assert [target.category for target in batch.targets] == [0, 1, 2]


def test_collate_keeps_ids_and_file_sizes():
    batch = collate(make_samples())
    assert batch.ids == ("p0", "p1", "p2")
    assert batch.file_sizes == ((100, 200), (101, 200), (102, 200))


def test_collate_takes_a_single_sample():
    assert collate(make_samples()[:1]).images.shape == (1, 1, 8, 8)


def test_collate_keeps_8_bits():
    images = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    samples = [replace(sample, image=images[i]) for i, sample in enumerate(make_samples())]
    assert torch.equal(collate(samples).images, images)


def test_collate_makes_floats_of_both_kinds():
    samples = make_samples()
    samples[1] = replace(samples[1], image=torch.full((1, 8, 8), 51, dtype=torch.uint8))
    images = collate(samples).images
    assert images.dtype == torch.float32
    assert images[:, 0, 0, 0].tolist() == [0, torch.tensor(0.2), 0.5]
