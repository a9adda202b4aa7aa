import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from src.structures import LOSS_NAMES, SHORT_LOSS_NAMES, Batch, Losses, Target, images_as_float

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LEVELS = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)


@pytest.mark.parametrize("device", DEVICES)
def test_images_of_8_bits_become_numpys_numbers(device):
    images = images_as_float(torch.from_numpy(LEVELS).to(device))
    assert images.dtype == torch.float32
    np.testing.assert_array_equal(images.cpu().numpy(), LEVELS.astype(np.float32) / np.float32(255))


def test_float_images_stay_as_they_are():
    images = torch.rand(2, 1, 4, 4)
    assert images_as_float(images) is images


@pytest.mark.parametrize("n_boxes", [0, 2])
def test_target_goes_to_another_process_by_value(n_boxes):
    target = Target(torch.rand(n_boxes, 4), 2, "P1")
    content = bytes(ForkingPickler.dumps(target))
    assert b"torch.multiprocessing" not in content  # which would send an open file
    again = pickle.loads(content)
    assert torch.equal(again.boxes_xyxy, target.boxes_xyxy)
    assert (again.category, again.group_id) == (2, "P1")


@pytest.mark.parametrize("device", DEVICES)
def test_batch_comes_to_a_device_as_floats(device):
    target = Target(torch.rand(2, 4), 2)
    batch = Batch(torch.from_numpy(LEVELS), (target,), ("a",), ((16, 16),))
    moved = batch.to(torch.device(device))
    assert moved.images.dtype == torch.float32
    assert moved.images.device.type == device
    assert moved.targets[0].boxes_xyxy.device.type == "cpu"
    assert moved.images.max() == 1
    assert batch.images.dtype == torch.uint8


def test_losses_are_named_once_and_stay_in_order():
    assert LOSS_NAMES == ("loss", "classification", "regression", "global_classification")
    assert SHORT_LOSS_NAMES == ("loss", "cls", "reg", "glob")
    losses = Losses(*(torch.tensor(value) for value in (1.0, 2.0, 4.0)))
    assert [part.item() for part in losses.parts()] == [1.0, 2.0, 4.0]
    assert losses.total().item() == pytest.approx(1.0 + 2.0 + 0.1 * 4.0)
