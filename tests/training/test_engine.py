from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from src.experiments.experiment import Experiment
from src.retinanet.losses import detection_losses
from src.retinanet.settings import WeakLimits
from src.structures import LOSS_NAMES, Batch, Losses
from src.system.distributed import Processes
from src.training.epoch import Stopped, validate
from src.training.progress import RunningLosses, loss_sums
from tests.made_batches import ON_CPU, PROVENANCE, make_batches, model_that_finds


def experiment(**settings):
    return replace(Experiment(encoder="resnet18", batch_size=2, learning_rate=1e-3), **settings)


def flat_weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_running_losses_are_means_over_images():
    running = RunningLosses()
    for values, n_images in (((1.0, 2.0, 3.0), 4), ((6.0, 7.0, 8.0), 1)):
        losses = Losses(*map(torch.tensor, values))
        running.add(loss_sums(losses, n_images).tolist(), n_images)
    assert running.means() == pytest.approx(
        {"classification": 2.0, "regression": 3.0, "global_classification": 4.0,
         "loss": 2.0 + 3.0 + 0.1 * 4.0}
    )  # fmt: skip
    assert str(running) == "loss 5.4000 cls 2.0000 reg 3.0000 glob 4.0000"


def test_running_losses_of_nothing_are_zero():
    assert set(RunningLosses().means().values()) == {0.0}


def test_validate_scores_every_image_of_every_batch():
    model, batches = model_that_finds(), make_batches([2, 2, 1])
    losses, predictions = validate(model, batches, acceleration=ON_CPU, provenance=PROVENANCE)
    assert predictions.ids.tolist() == [f"patient-{i}" for i in range(5)]
    assert (np.diff(predictions.offsets) > 0).all()
    assert np.diff(predictions.true_offsets).tolist() == [1, 0, 1, 0, 1]
    assert predictions.true_boxes_xyxy[:, 3].tolist() == [120, 122, 124]
    assert predictions.true_categories.tolist() == [2, 0, 2, 1, 2]
    assert predictions.image_sizes.tolist() == [[1024, 1024], [1024, 1025]] * 2 + [[1024, 1024]]
    assert predictions.provenance == replace(PROVENANCE, weak=WeakLimits())
    assert set(losses) == set(LOSS_NAMES)


def test_validate_gives_what_single_images_give():
    model, batches = model_that_finds(), make_batches([2, 2, 1])
    losses, predictions = validate(model, batches, acceleration=ON_CPU, provenance=PROVENANCE)
    singles = []
    for image in range(5):
        batch = make_batches([2, 2, 1])[image // 2]
        place = slice(image % 2, image % 2 + 1)
        single = Batch(
            batch.images[place], batch.targets[place], batch.ids[place], batch.file_sizes[place]
        )
        with torch.inference_mode():
            outputs = model(single.images)
            singles.append(detection_losses(outputs, model.anchors(single.images), single.targets))
        _, alone = validate(model, [single], acceleration=ON_CPU, provenance=PROVENANCE)
        rows = predictions.candidates_of(image)
        np.testing.assert_allclose(predictions.boxes_xyxy[rows], alone.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(predictions.scores[rows], alone.scores, atol=1e-5)
        np.testing.assert_allclose(predictions.class_probs[image], alone.class_probs[0], atol=1e-5)
    for name in LOSS_NAMES[1:]:
        mean = np.mean([getattr(single, name).item() for single in singles])
        assert losses[name] == pytest.approx(mean, rel=1e-4)


def test_validate_switches_dropout_off_and_leaves_the_weights_alone():
    model, batches = model_that_finds().train(), make_batches([2])
    before = flat_weights(model)
    first, _ = validate(model, batches, acceleration=ON_CPU, provenance=PROVENANCE)
    second, _ = validate(model, batches, acceleration=ON_CPU, provenance=PROVENANCE)
    assert first == second
    assert torch.equal(before, flat_weights(model))


@dataclass(frozen=True)
class OneOfTwo(Processes):
    """The first of two processes; the other one has seen no image, and may want to stop."""

    count: int = 2
    other_stops: bool = False

    def sum(self, values):
        return values + torch.tensor([0, 0, 0, 0, 0, self.other_stops])

    def gather(self, value):
        return [value]


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [(True, False, pytest.raises(Stopped)), (False, True, pytest.raises(Stopped)),
     (False, False, nullcontext())],
)  # fmt: skip
def test_validation_stops_where_any_process_wants_to(own, other, expected):
    with expected:
        validate(
            model_that_finds(), make_batches([2, 2]), acceleration=ON_CPU, provenance=PROVENANCE,
            processes=OneOfTwo(other_stops=other), wants_to_stop=lambda: own,
        )  # fmt: skip


def test_validation_that_stops_takes_no_further_batch():
    batches = iter(make_batches([2, 2, 2]))
    answers = iter([False, True])
    with pytest.raises(Stopped):
        validate(
            model_that_finds(), batches, acceleration=ON_CPU, provenance=PROVENANCE,
            wants_to_stop=lambda: next(answers),
        )  # fmt: skip
    assert len(list(batches)) == 1
