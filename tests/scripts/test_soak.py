import random

import pytest

from scripts.soak import Soak
from src.experiments.runs import Run
from src.system.errors import InputError


@pytest.fixture
def soak(tmp_path):
    run = Run("demo", 0, "", tmp_path)
    run.last_checkpoint_path.parent.mkdir(parents=True)
    return Soak(tmp_path, random.Random(0), run)


def test_soak_reads_whatever_has_a_final_name(soak):
    soak.reference.checkpoint_path(0).write_bytes(b"half")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        soak._check_files(soak.reference)


def test_soak_passes_over_what_a_killed_writer_leaves(soak):
    path = soak.reference.last_checkpoint_path
    path.with_name(f".{path.stem}.x3z1ab_9.tmp.safetensors").write_bytes(b"half")
    soak._check_files(soak.reference)
    assert soak.n_checked_files == 0
