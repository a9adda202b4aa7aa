"""Anchors, losses and candidates of an experiment shape its training, and are stored with it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from src.datasets.loaders import load_labelled_images
from src.experiments.checkpoints import CheckpointError, load_checkpoint
from src.experiments.experiment_file import read_stored_training
from src.experiments.runs import Run
from src.prediction.predictions import load_predictions
from src.training.loop import Training
from src.training.progress import Progress
from src.training.step import train_step
from tests.made_batches import make_batches
from tests.training.test_training import SMALL, options, rows_of, started

OTHER: dict[str, Any] = {
    "anchor_size": 3.0,
    "anchor_ratios": (0.6, 1.0, 1.5),
    "anchor_scales": (1.0, 1.2, 1.5),
    "focal_alpha": 0.5,
    "focal_gamma": 1.5,
    "box_loss": "giou",
    "smooth_l1_beta": 0.5,
    "box_loss_weight": 2.0,
    "global_loss_weight": 0.5,
    "positive_iou": 0.6,
    "negative_iou": 0.3,
}
LIMITS: dict[str, Any] = {"min_score": 0.009, "min_share_of_top": 0.99, "voting_iou": 0.5}


@pytest.fixture(scope="module")
def images(phantoms):
    return load_labelled_images(phantoms, 0)


def first_loss(run, experiment, images):
    """Return the sum of the losses in the first step on made-up images."""
    learner = Training(run, experiment, images, options()).learner
    progress = Progress(epoch=0)
    assert learner.model.box_head.output.bias is not None
    torch.nn.init.constant_(learner.model.box_head.output.bias, 0.3)  # at 0 betas do not differ
    train_step(learner, make_batches([2]), progress, stops=False)
    return progress.running.means()["loss"]


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_changes_the_loss_of_a_step(name, images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    plain = first_loss(run, SMALL, images)
    assert first_loss(run, SMALL, images) == plain
    changed = first_loss(run, replace(SMALL, **{name: OTHER[name]}), images)
    assert changed != pytest.approx(plain, rel=1e-6)


def test_a_training_uses_and_stores_its_own_settings(images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    experiment = replace(SMALL, **(OTHER | LIMITS), n_epochs=1)
    training = started(run, experiment, images, options())
    training.run()
    assert read_stored_training(run.experiment_path).settings == experiment
    for path in (run.checkpoint_path(0), run.last_checkpoint_path):
        assert load_checkpoint(path).facts.settings == experiment
    (row,) = rows_of(run.history_path)
    for part in ("train", "valid"):
        loss, classification, regression, of_image = (
            float(row[f"{part}_{name}"])
            for name in ("loss", "classification", "regression", "global_classification")
        )
        assert loss == pytest.approx(classification + 2 * regression + 0.5 * of_image, rel=1e-5)
    predictions = load_predictions(run.predictions_path(0))
    assert (predictions.scores > LIMITS["min_score"]).all()
    assert (predictions.scores < 0.025).any(), "candidates that the paper's limit leaves out"
    for image in range(len(predictions)):
        scores = predictions.scores[predictions.candidates_of(image)]
        assert (scores >= 0.99 * scores.max(initial=0)).all()
    with pytest.raises(CheckpointError, match=r"began with focal_alpha 0\.5, now it is 0\.25"):
        started(run, replace(experiment, focal_alpha=0.25), images, options(resume=True))


def test_validation_uses_the_same_losses_as_training(images, tmp_path):
    losses = {}
    for alpha in (0.25, 0.5):
        run = Run("demo", 0, f"alpha{alpha:g}", tmp_path)
        # Weights that hardly move: what differs is the formula.
        settings = replace(SMALL, focal_alpha=alpha, learning_rate=1e-12, n_epochs=1)
        started(run, settings, images, options()).run()
        losses[alpha] = float(rows_of(run.history_path)[0]["valid_classification"])
    assert not np.isclose(losses[0.25], losses[0.5], rtol=0.05)
