"""What a training began with, in words, and whether those weights have seen RSNA's images.

Validation images that the weights were trained on may score higher than new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from src.experiments.experiment import Experiment
from src.experiments.experiment_file import WeightsFile
from src.retinanet.encoders.named_weights import SEEN_RSNA

KEY = "pretraining"  # of experiment.json


class Pretraining(NamedTuple):
    """What a training began with.

    Attributes:
        began_with: in words.
        has_seen_rsna_images: None where nobody says what the weights were trained on.
    """

    began_with: str
    has_seen_rsna_images: bool | None


def describe_pretraining(
    experiment: Experiment, init_weights: WeightsFile | None, encoder_weights: WeightsFile | None
) -> Pretraining:
    """Say what a training began with.

    Args:
        init_weights: the checkpoint of another training that it began with, if it did.
        encoder_weights: the file of the encoder's pretrained weights, if it has any.
    """
    if init_weights is not None:
        name = Path(init_weights.path).name
        text = f"the weights of another training: {name}, SHA-256 {init_weights.sha256}"
        return Pretraining(text, None)
    named = experiment.named_weights
    if named is not None:
        text = f"the encoder with the weights {experiment.pretrained}: {named.describe()}"
        return Pretraining(text, named.seen_rsna)
    if encoder_weights is not None:
        file = Path(encoder_weights.path)
        is_published = experiment.pretrained and file.stem == experiment.encoder.replace("/", "_")
        text = f"the encoder with pretrained weights: {file.name}"
        return Pretraining(text, False if is_published else None)
    if experiment.pretrained:
        return Pretraining(f"the encoder with ImageNet weights of {experiment.encoder}", False)
    return Pretraining("random weights", False)


def note_on_rsna(description: Mapping[str, Any]) -> str:
    """Return the words for a reader where experiment.json says that RSNA's images were seen.

    Returns:
        An empty text where it does not.
    """
    said = description.get(KEY)
    has_seen = isinstance(said, dict) and said.get("has_seen_rsna_images") is True
    return SEEN_RSNA if has_seen else ""
