import json
import pickle
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from src.experiments.checkpoints import (
    FACTS_KEY,
    CheckpointError,
    load_checkpoint,
    load_weights,
)
from src.experiments.table import EXPERIMENTS
from src.system.tensor_files import load_tensors, save_tensors
from tests.hostile_files import Exploit, count_refusals
from tests.made_checkpoints import as_version_1, make_checkpoint, make_state, rewrite_facts
from tests.paths import ROOT

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from src.system.command_line import report_errors
from tests.made_checkpoints import make_checkpoint

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # bytes a file can grow to
with report_errors():
    make_checkpoint({"weight": torch.rand(100, 100)}).save(Path(sys.argv[1]))
"""


def refuse(path, match, experiment="demo", **options):
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path, experiment, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    # PyTorch's own message recommends the loading that runs code.
    assert "weights_only" not in message
    assert "arbitrary code" not in message


def assert_same(loaded, saved):
    for ours, expected in ((loaded.model, saved.model), (loaded.optimizer, saved.optimizer)):
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    saved = make_checkpoint(training=make_state(), optimizer={"0.exp_avg": torch.rand(2)})
    path = tmp_path / "new folder" / "005.safetensors"
    saved.save(path)
    loaded = load_checkpoint(path, "demo", resume=True)
    assert_same(loaded, saved)
    assert loaded.facts.settings == saved.facts.settings
    # JSON has no tuples; nothing reads these.
    groups = ({"lr": 1e-5, "betas": [0.9, 0.999], "params": [0, 1]},)
    assert loaded.facts == replace(saved.facts, training=make_state(param_groups=groups))


@pytest.mark.parametrize("checked", [True, False])
def test_a_checkpoint_of_version_1_is_read_as_one_of_today(tmp_path, checked):
    saved = make_checkpoint(training=make_state(), optimizer={"0.exp_avg": torch.rand(2)})
    torch.save(as_version_1(saved), tmp_path / "005.pt")
    loaded = load_checkpoint(tmp_path / "005.pt", "demo", resume=checked)
    assert_same(loaded, saved)
    assert loaded.facts == saved.facts


def test_numbers_of_a_training_come_back_bit_for_bit(tmp_path):
    numbers = [0.1 + 0.2, 1e-300, 5e-324, -0.0, 2**0.5, float("inf"), -float("inf"), 1e22, 2**60]
    path = tmp_path / "last.safetensors"
    state = make_state(history=({f"n{i}": n for i, n in enumerate(numbers)} | {"none": np.nan},))
    make_checkpoint(training=state).save(path)
    training = load_checkpoint(path, resume=True).facts.training
    assert training is not None
    (row,) = training.history
    assert np.isnan(row.pop("none"))
    assert [n.hex() if isinstance(n, float) else n for n in row.values()] == [
        n.hex() if isinstance(n, float) else n for n in numbers
    ]


def test_a_checkpoint_of_weights_is_a_file_of_named_tensors_and_json(tmp_path):
    """What others need to read it: the library, and these names."""
    path = tmp_path / "005.safetensors"
    make_checkpoint().save(path)
    tensors, metadata = load_tensors(path, checked=True)
    assert tensors.keys() == {"weight", "bias"}
    facts = json.loads(metadata[FACTS_KEY])
    assert facts == {
        "format": "pneumonia-checkpoint", "version": 2, "experiment": "demo", "epoch": 5,
        "settings": json.loads(json.dumps(asdict(EXPERIMENTS["demo"]))), "training": None,
        "tag": "", "fold": None, "shared": None,
    }  # fmt: skip


def test_a_missing_checkpoint_is_named(tmp_path):
    refuse(tmp_path / "005.safetensors", "no such checkpoint")
    refuse(tmp_path, "no such checkpoint")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world", b"patientId,x,y\n1,2\n", b"a,b\n1,2\n", b"\x80", b"PK\x03\x04 nothing",
     b"\x89PNG\r\n\x1a\n" + bytes(100), pickle.dumps({"a": 1}), b"\xff\xd8\xff\xe0" + bytes(50)],
)  # fmt: skip
def test_a_file_that_is_something_else_is_refused(tmp_path, content):
    path = tmp_path / "005.safetensors"
    path.write_bytes(content)
    refuse(path, "not a")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "005.safetensors"
    make_checkpoint().save(path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        refuse(path, "not a readable checkpoint")


def test_damage_anywhere_in_the_state_of_a_training_is_found(tmp_path):
    path = tmp_path / "last.safetensors"
    make_checkpoint(training=make_state()).save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for place in rng.integers(0, len(whole), 300):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError):
            load_checkpoint(path, resume=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_damage_anywhere_in_a_checkpoint_is_refused_or_harmless(tmp_path, suffix):
    path = tmp_path / f"005{suffix}"
    if suffix == ".pt":
        torch.save(as_version_1(make_checkpoint()), path)
    else:
        make_checkpoint().save(path)
    assert count_refusals(path, lambda path: load_checkpoint(path, "demo"), CheckpointError) > 200


def test_pickled_code_in_a_checkpoint_does_not_run(tmp_path):
    path, touched = tmp_path / "005.safetensors", tmp_path / "touched"
    content = {"format": "pneumonia-checkpoint", "version": 1, "model": Exploit(touched)}
    for suffix in (".pt", ".safetensors"):
        path = path.with_suffix(suffix)
        for save in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
            save(content, path)
            refuse(path, "not a readable checkpoint")
            assert not touched.exists()
    torch.save(content, path)
    torch.load(path, weights_only=False)
    assert touched.exists(), "the exploit works where it is let in"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"weight": torch.zeros(2)}, "not a readable checkpoint"),
        ([1, 2], "not a readable checkpoint"),
        ({"format": "another", "model": {}}, "not a checkpoint of this project"),
        ({"format": "pneumonia-checkpoint", "version": 3, "model": {}}, "format version 2"),
        ({"format": "pneumonia-checkpoint", "version": 1}, "not a readable checkpoint"),
        ({"version": "1"}, "format version 2"),
        ({"epoch": "1"}, "epoch cannot be '1'"),
        ({"settings": {}}, "field encoder is missing"),
        ({"settings": None}, "settings cannot be None"),
        ({"model": {1: torch.zeros(2)}}, "not a readable checkpoint"),
        ({"training": {"optimizer": 3}}, "not a readable checkpoint"),
    ],
)
def test_a_file_of_torch_save_of_another_kind_is_refused(tmp_path, content, match):
    sound = as_version_1(make_checkpoint())
    if isinstance(content, dict) and "format" not in content and "weight" not in content:
        content = sound | content
    torch.save(content, tmp_path / "005.pt")
    refuse(tmp_path / "005.pt", match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda facts: None, "not a checkpoint of this project"),
        (lambda facts: [facts], "not a checkpoint of this project"),
        (lambda facts: facts | {"format": "another"}, "not a checkpoint of this project"),
        (lambda facts: facts | {"version": 3}, "not a checkpoint of format version 2"),
        (lambda facts: facts | {"epoch": 1.5}, "epoch cannot be 1.5"),
        (lambda facts: facts | {"epoch": True}, "epoch cannot be True"),
        (lambda facts: facts | {"training": {}}, "param_groups is missing"),
        (lambda facts: facts | {"licence": "MIT"}, "unknown field 'licence'"),
        (lambda facts: facts | {"settings": []}, r"settings cannot be \[\]"),
        (lambda facts: facts | {"settings": facts["settings"] | {"img_size": 7}}, "img_size"),
        (lambda facts: facts | {"settings": facts["settings"] | {"mixup": 0.2}}, "'mixup'"),
        (lambda facts: facts | {"experiment": None}, "experiment cannot be None"),
    ],
)
def test_facts_that_are_not_as_declared_are_refused(tmp_path, change, match):
    path = tmp_path / "005.safetensors"
    make_checkpoint().save(path)
    rewrite_facts(path, change)
    refuse(path, match)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "9" * 5000, "\x00"])
def test_facts_that_are_no_json_are_refused(tmp_path, text):
    path = tmp_path / "005.safetensors"
    save_tensors(path, {"weight": torch.zeros(3)}, {FACTS_KEY: text})
    refuse(path, "not a")


def test_tensors_of_others_are_no_checkpoint(tmp_path):
    path = tmp_path / "005.safetensors"
    save_tensors(path, {"weight": torch.zeros(3)}, {"format": "pt"})
    refuse(path, "not a checkpoint of this project")


def test_settings_that_came_later_have_what_runs_did_before(tmp_path):
    path = tmp_path / "005.safetensors"
    make_checkpoint().save(path)
    rewrite_facts(
        path,
        lambda facts: (
            facts
            | {
                "settings": {
                    name: value for name, value in facts["settings"].items() if name != "clip_boxes"
                }
            }
        ),
    )
    assert load_checkpoint(path).facts.settings == EXPERIMENTS["demo"]


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path):
    path = tmp_path / "005.safetensors"
    make_checkpoint().save(path)
    refuse(path, "belongs to experiment 'demo', not 'resnet50_512'", "resnet50_512")


def test_resuming_needs_the_training_state(tmp_path):
    path = tmp_path / "005.safetensors"
    make_checkpoint().save(path)
    refuse(path, "holds weights only", resume=True)


def test_weights_go_into_the_network(tmp_path):
    model, saved = nn.Linear(4, 3), make_checkpoint()
    load_weights(model, saved, tmp_path / "005.safetensors")
    assert torch.equal(model.weight, saved.model["weight"])


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (nn.Linear(4, 2), r"weight has shape \(3, 4\), not \(2, 4\)"),
        (nn.Linear(4, 3, bias=False), "'bias' is left over"),
        (nn.Conv2d(1, 3, 1), r"weight has shape \(3, 4\), not \(3, 1, 1, 1\)"),
        (nn.Sequential(nn.Linear(4, 3)), r"0\.weight is missing"),
        (nn.Linear(4, 3).half(), r"weight has dtype torch\.float32, not torch\.float16"),
    ],
)
@pytest.mark.parametrize("assign", [True, False])
def test_weights_of_another_network_are_refused_in_one_line(tmp_path, model, match, assign):
    path = tmp_path / "005.safetensors"
    with pytest.raises(CheckpointError, match=f"does not fit the network: {match}") as caught:
        load_weights(model, make_checkpoint(), path, assign=assign)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_failed_save_leaves_the_older_checkpoint(tmp_path):
    path = tmp_path / "005.safetensors"
    make_checkpoint().save(path)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        make_checkpoint({"weight": torch.zeros(3, dtype=torch.complex128)}).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on the size of files")
def test_a_full_disk_ends_with_one_line_and_keeps_the_older_checkpoint(tmp_path, run_command):
    path = tmp_path / "005.safetensors"
    make_checkpoint().save(path)
    before = path.read_bytes()
    outcome = run_command("-c", FULL_DISK, path, cwd=ROOT, ok=False)
    assert outcome.code == 2
    assert [line.split(":")[0] for line in outcome.err.splitlines()] == ["error"]
    assert str(path) in outcome.err
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
