"""What a training began with, and whether those weights have seen RSNA's images."""

from dataclasses import replace

import pytest

from src.experiments.experiment_file import WeightsFile
from src.experiments.pretraining import describe_pretraining, note_on_rsna
from src.experiments.table import EXPERIMENTS

DEMO = EXPERIMENTS["demo"]
IMAGENET = replace(DEMO, encoder="timm/densenet121", pretrained=True)
OTHER = WeightsFile(path="/a/b.safetensors", sha256="0" * 64)


def named(name):
    return replace(IMAGENET, input_channels=1, pretrained=name)


@pytest.mark.parametrize(
    ("experiment", "init_weights", "encoder_weights", "has_seen"),
    [
        (DEMO, None, None, False),
        (DEMO, None, "any.pth", None),
        (IMAGENET, None, "weights/timm_densenet121.safetensors", False),
        (IMAGENET, None, "mine.pth", None),
        (IMAGENET, OTHER, None, None),
        (named("xrv_densenet121_all"), None, "any.pth", True),
        (named("xrv_densenet121_chex"), None, "any.pth", False),
    ],
)
def test_who_has_seen_rsna_images(experiment, init_weights, encoder_weights, has_seen):
    file = encoder_weights and WeightsFile(path=encoder_weights, sha256="0" * 64)
    found = describe_pretraining(experiment, init_weights, file)
    assert found.has_seen_rsna_images is has_seen
    assert ("has seen RSNA images" in found.began_with) is (has_seen is True)


def test_an_experiment_file_of_an_older_version_says_nothing():
    assert note_on_rsna({}) == note_on_rsna({"pretraining": "text"}) == ""
