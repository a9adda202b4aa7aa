from dataclasses import replace

import pytest

from src.experiments.checkpoints import CheckpointError, load_checkpoint
from src.experiments.networks import load_network
from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS


def test_a_checkpoint_of_another_input_size_is_refused(talkative):
    path = Run("demo", 0, "", talkative).checkpoint_path(0)
    experiment = replace(EXPERIMENTS["demo"], img_size=256)
    with pytest.raises(CheckpointError, match=r"000\.safetensors: .*img_size 192, not 256"):
        load_network(experiment, load_checkpoint(path, "demo"), path)
