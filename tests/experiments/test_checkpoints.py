import pickle
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from src.experiments.checkpoints import Checkpoint, CheckpointError, load_checkpoint, load_weights
from tests.paths import ROOT
from tests.pickled_code import Exploit

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from src.experiments.checkpoints import Checkpoint
from src.system.command_line import report_errors

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # bytes a file can grow to
with report_errors():
    Checkpoint("demo", {}, 0, {"weight": torch.rand(100, 100)}, {}).save(Path(sys.argv[1]))
"""


def checkpoint(**changes):
    weights = {"weight": torch.rand(3, 4), "bias": torch.rand(3)}
    saved = Checkpoint("demo", {"encoder": "resnet18", "levels": (3, 4)}, 5, weights, {})
    return replace(saved, **changes)


def refuse(path, match, experiment="demo", **options):
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path, experiment, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    # PyTorch's own message recommends the loading that runs code.
    assert "weights_only" not in message
    assert "arbitrary code" not in message


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    saved = checkpoint(training={"optimizer": {"state": {0: torch.rand(2)}}, "history": [{"e": 1}]})
    path = tmp_path / "new folder" / "005.pt"
    saved.save(path)
    loaded = load_checkpoint(path, "demo", resume=True)
    assert (loaded.experiment, loaded.settings, loaded.epoch) == ("demo", saved.settings, 5)
    for name, tensor in saved.model.items():
        assert torch.equal(loaded.model[name], tensor)
    assert torch.equal(
        loaded.training["optimizer"]["state"][0], saved.training["optimizer"]["state"][0]
    )
    assert loaded.training["history"] == [{"e": 1}]


def test_a_checkpoint_holds_nothing_but_plain_values(tmp_path):
    path = tmp_path / "005.pt"
    checkpoint().save(path)
    content = torch.load(path, weights_only=True)
    assert content.keys() == {
        "format", "version", "experiment", "settings", "epoch", "model", "training"
    }  # fmt: skip


def test_a_missing_checkpoint_is_named(tmp_path):
    refuse(tmp_path / "005.pt", "no such checkpoint")
    refuse(tmp_path, "no such checkpoint")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world", b"patientId,x,y\n1,2\n", b"a,b\n1,2\n", b"\x80", b"PK\x03\x04 nothing",
     b"\x89PNG\r\n\x1a\n" + bytes(100), pickle.dumps({"a": 1}), b"\xff\xd8\xff\xe0" + bytes(50)],
)  # fmt: skip
def test_a_file_that_is_something_else_is_refused(tmp_path, content):
    path = tmp_path / "005.pt"
    path.write_bytes(content)
    refuse(path, "not a")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "005.pt"
    checkpoint().save(path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        refuse(path, "not a readable checkpoint")


def test_damage_anywhere_in_a_checkpoint_is_refused_or_harmless(tmp_path):
    path = tmp_path / "005.pt"
    checkpoint().save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    n_refused = 0
    for _ in range(600):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path, "demo")
        except CheckpointError:
            n_refused += 1
    assert n_refused > 200


def test_pickled_code_in_a_checkpoint_does_not_run(tmp_path):
    path, touched = tmp_path / "005.pt", tmp_path / "touched"
    content = {"format": "pneumonia-checkpoint", "version": 1, "model": Exploit(touched)}
    for save in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
        save(content, path)
        refuse(path, "not a readable checkpoint")
        assert not touched.exists()
    torch.load(tmp_path / save_for_real(tmp_path, content), weights_only=False)
    assert touched.exists(), "the exploit works where it is let in"


def save_for_real(folder, content):
    torch.save(content, folder / "exploit.pt")
    return "exploit.pt"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"weight": torch.zeros(2)}, "not a checkpoint of this project"),
        ([1, 2], "not a checkpoint of this project"),
        ({"format": "pneumonia-checkpoint", "version": 1}, "format version 1"),
        ({"format": "pneumonia-checkpoint", "version": 2, "experiment": "demo", "settings": {},
          "epoch": 1, "model": {}, "training": {}}, "format version 1"),
        ({"format": "pneumonia-checkpoint", "version": 1, "experiment": "demo", "settings": {},
          "epoch": "1", "model": {}, "training": {}}, "format version 1"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_kind_is_refused(tmp_path, content, match):
    path = tmp_path / "005.pt"
    torch.save(content, path)
    refuse(path, match)


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path):
    path = tmp_path / "005.pt"
    checkpoint().save(path)
    refuse(path, "belongs to experiment 'demo', not 'resnet50_512'", "resnet50_512")


def test_resuming_needs_the_training_state(tmp_path):
    path = tmp_path / "005.pt"
    checkpoint().save(path)
    refuse(path, "holds weights only", resume=True)


def test_weights_go_into_the_network(tmp_path):
    model, saved = nn.Linear(4, 3), checkpoint()
    load_weights(model, saved, tmp_path / "005.pt")
    assert torch.equal(model.weight, saved.model["weight"])


@pytest.mark.parametrize(
    "model", [nn.Linear(4, 2), nn.Linear(4, 3, bias=False), nn.Conv2d(1, 3, 1)]
)
def test_weights_of_another_network_are_refused_in_one_line(tmp_path, model):
    path = tmp_path / "005.pt"
    with pytest.raises(CheckpointError, match="does not fit the network") as caught:
        load_weights(model, checkpoint(), path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_failed_save_leaves_the_older_checkpoint(tmp_path):
    path = tmp_path / "005.pt"
    checkpoint().save(path)
    before = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        checkpoint(settings={"function": lambda: None}).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on the size of files")
def test_a_full_disk_ends_with_one_line_and_keeps_the_older_checkpoint(tmp_path, run_command):
    path = tmp_path / "005.pt"
    checkpoint().save(path)
    before = path.read_bytes()
    outcome = run_command("-c", FULL_DISK, path, cwd=ROOT, ok=False)
    assert outcome.code == 2
    assert [line.split(":")[0] for line in outcome.err.splitlines()] == ["error"]
    assert str(path) in outcome.err
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
