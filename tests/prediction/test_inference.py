"""Networks over images that somebody else has made into batches."""

from dataclasses import replace

import numpy as np
import torch

from src.prediction.inference import predict
from src.prediction.predictions import ALL_ARRAYS, ARRAYS, load_predictions
from src.retinanet.settings import WeakLimits
from src.structures import Batch, Target
from src.training.epoch import validate
from tests.made_batches import ON_CPU, PROVENANCE, make_batches, model_that_finds


def predict_on_cpu(batches, **options):
    return predict(
        model_that_finds(), batches, acceleration=ON_CPU, provenance=PROVENANCE, **options
    )


def test_predict_finds_what_validate_finds():
    model, batches = model_that_finds(), make_batches([2, 1])
    _, validated = validate(model, batches, acceleration=ON_CPU, provenance=PROVENANCE)
    predicted = predict_on_cpu(batches, weak=WeakLimits())
    for name in ALL_ARRAYS:
        np.testing.assert_array_equal(getattr(predicted, name), getattr(validated, name))
    assert predicted.provenance == validated.provenance == replace(PROVENANCE, weak=WeakLimits())


def test_what_is_found_does_not_depend_on_what_is_saved_beside():
    few, none = (
        predict_on_cpu(make_batches([2, 1]), weak=WeakLimits(max_count=count)) for count in (5, 0)
    )
    assert len(few.weak_scores) > 0 == len(none.weak_scores)
    assert (np.diff(few.weak_offsets) <= 5).all()
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(few, name), getattr(none, name))


def test_predict_takes_images_without_labels_and_no_images():
    batch = make_batches([2])[0]
    unknown = tuple(Target(torch.zeros(0, 4), -1) for _ in batch.ids)
    unlabelled = Batch(batch.images, unknown, batch.ids, batch.file_sizes)
    assert not predict_on_cpu([unlabelled]).has_truth
    assert len(predict_on_cpu([])) == 0


def test_what_was_predicted_can_be_saved(tmp_path):
    predict_on_cpu(make_batches([2, 1])).save(tmp_path / "000.npz")
    assert len(load_predictions(tmp_path / "000.npz")) == 3
