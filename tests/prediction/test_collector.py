import weakref
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from src.prediction.collector import PredictionCollector, gather_predictions
from src.prediction.predictions import ALL_ARRAYS, PredictionsError, take_images
from src.structures import Detections
from src.system.distributed import ALONE, Processes
from tests.made_batches import PROVENANCE, make_batches
from tests.made_predictions import random_predictions, with_weak_boxes


def detect(*scores):
    """Boxes that tell their scores, and class probabilities that tell how many they are."""
    values = torch.tensor(scores)
    corners = torch.stack([values, values, values + 1, values + 2], dim=1).reshape(-1, 4)
    return Detections(corners, values, torch.tensor([0.0, 0.0, len(scores)]))


def test_what_is_found_in_batches_comes_in_the_order_of_the_images():
    collected = PredictionCollector(PROVENANCE)
    found = [[detect(0.9, 0.5), detect()], [detect(0.7)]]
    weak = [[detect(0.02), detect()], [detect(0.01, 0.007)]]
    for batch, *detections in zip(make_batches([2, 1]), found, weak, strict=True):
        collected.add(batch, *detections)
    predictions = collected.finish()
    assert predictions.ids.tolist() == ["patient-0", "patient-1", "patient-2"]
    assert predictions.image_sizes.tolist() == [[1024, 1024], [1024, 1025], [1024, 1024]]
    assert predictions.offsets.tolist() == [0, 2, 2, 3]
    assert predictions.scores == pytest.approx([0.9, 0.5, 0.7])
    assert predictions.boxes_xyxy[1] == pytest.approx([0.5, 0.5, 1.5, 2.5])
    assert predictions.weak_offsets.tolist() == [0, 1, 1, 3]
    assert predictions.weak_scores == pytest.approx([0.02, 0.01, 0.007])
    assert predictions.weak_boxes_xyxy[2] == pytest.approx([0.007, 0.007, 1.007, 2.007])
    assert predictions.class_probs[:, 2].tolist() == [2, 0, 1]
    assert predictions.true_offsets.tolist() == [0, 1, 1, 2]
    assert predictions.true_boxes_xyxy[:, 3].tolist() == [120, 122]
    assert predictions.true_categories.tolist() == [2, 0, 2]
    assert predictions.provenance == PROVENANCE


def test_the_groups_of_images_are_kept():
    (batch,) = make_batches([2])
    first, second = batch.targets
    targets = (replace(first, group_id="P1"), second)
    collected = PredictionCollector(PROVENANCE)
    collected.add(replace(batch, targets=targets), [detect(), detect()], [detect(), detect()])
    assert collected.finish().group_ids.tolist() == ["P1", ""]


def test_nothing_of_a_batch_is_kept_but_its_numbers():
    """Pieces of memory that stay, between the blocks of passing batches, make a process grow."""
    collected, (batch,) = PredictionCollector(PROVENANCE), make_batches([2])
    found, weak = [detect(0.9), detect()], [detect(0.01), detect()]
    parts = (batch.images, *(target.boxes_xyxy for target in batch.targets), found[0].boxes_xyxy,
             found[0].scores, found[0].class_probs, weak[0].boxes_xyxy)  # fmt: skip
    references = [weakref.ref(part) for part in parts]
    collected.add(batch, found, weak)
    del batch, found, weak, parts
    assert [reference() for reference in references] == [None] * len(references)


def test_nothing_makes_predictions_of_no_images():
    predictions = PredictionCollector(PROVENANCE).finish()
    shapes = {name: getattr(predictions, name).shape for name in ALL_ARRAYS}
    assert shapes == {
        "ids": (0,), "group_ids": (0,), "image_sizes": (0, 2), "class_probs": (0, 3),
        "offsets": (1,), "boxes_xyxy": (0, 4), "scores": (0,), "weak_offsets": (1,),
        "weak_boxes_xyxy": (0, 4), "weak_scores": (0,), "true_offsets": (1,),
        "true_boxes_xyxy": (0, 4), "true_categories": (0,),
    }  # fmt: skip


@dataclass(frozen=True)
class PretendedProcesses(Processes):
    """Processes that have found these parts."""

    parts: tuple = ()

    def gather(self, value):
        return list(self.parts)


@pytest.mark.parametrize("n_images", [5, 6, 7])
def test_what_three_processes_found_is_put_in_the_order_of_the_images(n_images):
    whole = with_weak_boxes(random_predictions(n_images=n_images))
    parts = tuple(take_images(whole, range(rank, n_images, 3)) for rank in range(3))
    gathered = gather_predictions(parts[1], PretendedProcesses(1, 3, parts))
    for name in ALL_ARRAYS:
        np.testing.assert_array_equal(getattr(gathered, name), getattr(whole, name))
    assert gathered.provenance == whole.provenance


def test_one_process_keeps_what_it_found():
    own = random_predictions()
    assert gather_predictions(own, ALONE) is own


def test_an_image_that_two_processes_predicted_is_refused():
    parts = (random_predictions(), random_predictions())
    with pytest.raises(PredictionsError, match="patient-0"):
        gather_predictions(parts[0], PretendedProcesses(0, 2, parts))
