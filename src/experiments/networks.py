"""The network of an experiment: built for training, or around the weights of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import init

from src.experiments.checkpoints import Checkpoint, load_checkpoint, load_weights
from src.experiments.experiment import Experiment
from src.experiments.experiment_file import read_stored_training
from src.experiments.runs import Run, read_description, require_weights
from src.retinanet.encoders import build_encoder, family_of
from src.retinanet.encoders.weights import load_encoder_weights
from src.retinanet.model import RetinaNet
from src.retinanet.settings import Normalisation


def count_parameters(experiment: Experiment) -> int:
    """Count the numbers that are trained, without taking memory for them."""
    with torch.device("meta"):
        model = build_model(experiment)
    return sum(parameter.numel() for parameter in model.parameters())


def build_empty_model(experiment: Experiment) -> RetinaNet:
    """Build the network of an experiment, its weights undefined: they must be loaded.

    Drawing random weights takes most of the time that a network is built in. Not for several
    threads at once.
    """
    drawing = {name: function for name, function in vars(init).items()
               if name.endswith("_") and not name.startswith("_")}  # fmt: skip
    try:
        for name in drawing:
            setattr(init, name, lambda tensor, *_, **__: tensor)
        return build_model(experiment)
    finally:
        for name, function in drawing.items():
            setattr(init, name, function)


def build_model(experiment: Experiment, *, encoder_weights: Path | None = None) -> RetinaNet:
    """Build the network of an experiment.

    Args:
        encoder_weights: a file of pretrained weights; None starts the encoder at random.
    """
    encoder = build_encoder(
        experiment.encoder, img_size=experiment.img_size, in_channels=experiment.input_channels
    )
    if encoder_weights is not None:
        named = experiment.named_weights
        layout = "encoder" if named is None else named.layout
        load_encoder_weights(encoder, experiment.encoder, encoder_weights, layout)
    return RetinaNet(
        encoder,
        levels=experiment.pyramid_levels,
        width=experiment.pyramid_width,
        head_depth=experiment.head_depth,
        dropout_class=experiment.dropout_class,
        dropout_global=experiment.dropout_global,
        train_batch_norm=experiment.trains_batch_norm,
        anchor_shapes=experiment.anchor_shapes,
        limits=experiment.limits,
        normalisation=choose_normalisation(experiment),
    )


def choose_normalisation(experiment: Experiment) -> Normalisation | None:
    """Return what the input of a new network is normalised by; a checkpoint has its own numbers.

    Raises:
        InputError: it is to be that of the encoder's weights, and is not known.
    """
    if isinstance(experiment.normalisation, tuple):
        mean, deviation = experiment.normalisation
        return Normalisation(mean=(mean,), deviation=(deviation,))
    if experiment.normalisation == "none":
        return None
    if experiment.named_weights is not None:
        of_weights = experiment.named_weights.normalisation
    else:
        of_weights = family_of(experiment.encoder).normalisation(experiment.encoder)
    return of_weights if experiment.input_channels > 1 else of_weights.of_one_channel()


def load_network(checkpoint: Checkpoint, path: Path) -> RetinaNet:
    """Build the network that a checkpoint's weights are of, around them.

    No weights are drawn at random first, and those of the checkpoint are not copied.

    Raises:
        CheckpointError: the weights are of another network than the checkpoint says.
    """
    model = build_empty_model(checkpoint.facts.settings)
    load_weights(model, checkpoint, path, assign=True)
    return model


def trained_experiment(run: Run, epoch: int) -> Experiment:
    """Return what the weights of an epoch were trained with, as the run's own files say.

    The table of experiments does not count: an entry may be another one by now, or gone. The
    checkpoint says it; where it was removed, and predictions are left, experiment.json does.

    Raises:
        InputError: neither file is there, or one cannot be used.
    """
    path = run.find_checkpoint(epoch)
    if path is not None:
        return load_checkpoint(path, run.model).facts.settings
    if "settings" not in read_description(run.experiment_path):  # a prediction's has none
        require_weights(run.checkpoint_path(epoch))
    return read_stored_training(run.experiment_path).settings
