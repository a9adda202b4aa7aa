"""A training by today's recipe: AdamW, cosine, average of the weights; stopped, it goes on."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import src.training.loop
from src.datasets.loaders import load_labelled_images
from src.experiments.checkpoints import CheckpointError, load_checkpoint
from src.experiments.networks import load_network
from src.experiments.runs import Run
from src.prediction.image_sets import labelled_image_set
from src.prediction.inference import Inference
from src.prediction.predictions import load_predictions
from src.prediction.presets import Postprocess
from src.prediction.provenance import Member, NetworkSet
from tests.training.test_training import ON_CPU, SMALL, assert_same_run, options, started

RECIPE = replace(
    SMALL,
    optimizer="adamw",
    weight_decay=0.05,
    layer_decay=0.8,
    scheduler="cosine",
    warmup_share=0.25,
    ema_decay=0.9,
    normalisation="encoder",
    batch_size=2,
    accumulate=2,
)


@pytest.fixture(scope="module")
def images(phantoms):
    return load_labelled_images(phantoms, 0)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """Return a run of two epochs that nothing interrupted."""
    run = Run("demo", 0, "", tmp_path_factory.mktemp("whole"))
    started(run, RECIPE, images, options()).run()
    return run


def stop_after(monkeypatch, n_steps, run, images):
    """Kill a training after so many steps of its second epoch, each of which was saved."""
    train_epoch = src.training.loop.train_epoch

    def interrupted(learner, batches, progress, *, after_step, **others):
        done = 0

        def count():
            nonlocal done
            after_step()
            done += 1
            if progress.epoch == 1 and done == n_steps:
                raise KeyboardInterrupt

        train_epoch(learner, batches, progress, after_step=count, **others)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(src.training.loop, "train_epoch", interrupted)
        started(run, RECIPE, images, options(checkpoint_minutes=0)).run()


def without_history(checkpoint):
    return replace(checkpoint.facts.training, history=())


@pytest.mark.parametrize("n_steps", [1, 2])
def test_a_training_that_was_killed_goes_on_bit_for_bit(
    whole, images, tmp_path, monkeypatch, n_steps
):
    run = Run("demo", 0, "", tmp_path)
    stop_after(monkeypatch, n_steps, run, images)
    resumed = started(run, RECIPE, images, options(resume=True))
    assert resumed.progress.n_batches == 2 * n_steps
    assert resumed.learner.optimization.average is not None
    assert resumed.learner.optimization.average.n_steps > n_steps
    resumed.run()
    assert_same_run(run, whole)
    ours, expected = (
        load_checkpoint(each.last_checkpoint_path, resume=True) for each in (run, whole)
    )
    for tensors, its in ((ours.model, expected.model), (ours.optimizer, expected.optimizer)):
        assert tensors.keys() == its.keys()
        assert all(torch.equal(tensors[name], value) for name, value in its.items())
    assert without_history(ours) == without_history(expected)  # it was compared above


def test_an_epochs_checkpoint_holds_the_average_and_the_last_one_both(whole):
    epoch = load_checkpoint(whole.checkpoint_path(1)).model
    last = load_checkpoint(whole.last_checkpoint_path, resume=True)
    averages = {
        name.removeprefix("average."): value
        for name, value in last.optimizer.items()
        if name.startswith("average.")
    }
    assert epoch.keys() == last.model.keys()
    assert {name for name in epoch if name not in averages} == {
        name for name in epoch if name.endswith("num_batches_tracked")
    }
    assert all(torch.equal(epoch[name], value) for name, value in averages.items())
    moved = [name for name, value in averages.items() if not torch.equal(value, last.model[name])]
    assert "encoder.net.stem.bn.running_mean" in moved
    assert "class_head.output.weight" in moved
    assert "input_mean" not in moved


def test_validation_uses_the_weights_that_the_epochs_checkpoint_holds(whole, images):
    path = whole.checkpoint_path(1)
    networks = NetworkSet(members=(Member(run=whole, experiment=RECIPE, epoch=1, path=path),))
    found = Inference(acceleration=ON_CPU, n_workers=0).predict(
        labelled_image_set(images, images.valid), networks, Postprocess()
    )
    saved = load_predictions(whole.predictions_path(1))
    np.testing.assert_allclose(found.class_probs, saved.class_probs, atol=1e-6)
    last = load_checkpoint(whole.last_checkpoint_path)
    image = torch.rand(1, 1, 192, 192)
    averaged, own = (
        load_network(checkpoint, path).eval()(image).class_log_probs
        for checkpoint in (load_checkpoint(path), last)
    )
    assert not torch.allclose(averaged, own, atol=1e-4)


def test_a_stopped_validation_leaves_the_networks_own_weights(images, tmp_path, monkeypatch):
    run = Run("demo", 0, "", tmp_path)
    training = started(run, RECIPE, images, options())
    seen: list[dict[str, torch.Tensor]] = []

    def interrupted(model, *_, **__):
        seen.append(copy.deepcopy(model.state_dict()))
        raise KeyboardInterrupt

    monkeypatch.setattr(src.training.loop, "validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.run()
    own = training.model.state_dict()
    assert training.learner.optimization.average is not None
    for name, value in training.learner.optimization.average.values.items():
        assert torch.equal(seen[0][name], value)
    assert any(not torch.equal(seen[0][name], value) for name, value in own.items())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_epochs": 3}, "began with n_epochs 2, now it is 3"),
        ({"ema_decay": 0.0}, r"began with ema_decay 0\.9, now it is 0\.0"),
    ],
)
def test_another_recipe_is_refused_when_a_training_goes_on(whole, images, change, match):
    with pytest.raises(CheckpointError, match=match):
        started(whole, replace(RECIPE, **change), images, options(resume=True))


def test_a_state_without_its_average_is_refused(whole, images, tmp_path):
    run = replace(whole, output_dir=tmp_path)
    last = load_checkpoint(whole.last_checkpoint_path, resume=True)
    kept = {k: v for k, v in last.optimizer.items() if k != "average.class_head.output.weight"}
    replace(last, optimizer=kept).save(run.last_checkpoint_path)
    with pytest.raises(CheckpointError, match="does not fit: its average is of other weights"):
        started(run, RECIPE, images, options(resume=True))
