import io
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from src.system.tensor_files import load_tensor_file


class Exploit:
    """Unpickling it runs a command."""

    def __init__(self, touched):
        self.touched = touched

    def __reduce__(self):
        return os.system, (f"touch '{self.touched}'",)


def save_zipped(content, path):
    torch.save(content, path)


def save_as_before_2020(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickled(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


def replace_pickle(path, content, compression=zipfile.ZIP_STORED):
    """Put other bytes in place of the pickle within a file of torch.save."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, member in members.items():
            is_pickle = content is not None and name.endswith("data.pkl")
            archive.writestr(name, content if is_pickle else member)


@pytest.mark.parametrize("save", [save_zipped, save_as_before_2020])
def test_tensors_and_plain_values_come_back(tmp_path, save):
    model = nn.BatchNorm2d(3)
    content = {
        "model": model.state_dict(),
        "parameters": dict(model.named_parameters()),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
        "plain": [1, 2.5, None, True, "text", (3, 4), {5: 6}],
        "shape": torch.zeros(2, 3).shape,
        "kind": torch.float32,
        "ordered": OrderedDict(a=1),
        "milestones": Counter({3: 1}),
    }
    save(content, tmp_path / "a.pt")
    loaded = load_tensor_file(tmp_path / "a.pt")
    assert isinstance(loaded, dict)
    assert str(loaded) == str(content)


@pytest.mark.parametrize("save", [save_zipped, save_as_before_2020, save_pickled])
@pytest.mark.parametrize("wrap", [lambda exploit: exploit, lambda exploit: {"model": [exploit]}])
def test_a_command_in_a_file_does_not_run(tmp_path, save, wrap):
    path, touched = tmp_path / "a.pt", tmp_path / "touched"
    save(wrap(Exploit(touched)), path)
    with pytest.raises(Exception, match=r"posix system|opcode"):
        load_tensor_file(path)
    assert not touched.exists()
    if save is save_pickled:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert touched.exists(), "the command runs where it is let in"


@pytest.mark.parametrize("name", [b"builtins\nbytearray", b"torch\nFloatTensor", b"torch\nzeros"])
def test_a_file_cannot_ask_for_memory(tmp_path, name):
    save_zipped({"a": torch.zeros(3)}, tmp_path / "a.pt")
    pickled = b"\x80\x02c%s\n\x8a\x08%s\x85R." % (name, struct.pack("<q", 1 << 31))
    replace_pickle(tmp_path / "a.pt", pickled)
    with pytest.raises(pickle.UnpicklingError, match="it holds"):
        load_tensor_file(tmp_path / "a.pt")


def test_a_compressed_file_is_refused(tmp_path):
    save_zipped({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    replace_pickle(tmp_path / "a.pt", None, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        load_tensor_file(tmp_path / "a.pt")


def test_a_storage_longer_than_its_bytes_is_refused(tmp_path):
    save_zipped({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        pickled = archive.read("a/data.pkl")
    long = b"\x8a\x08" + struct.pack("<q", 10**9)
    replace_pickle(tmp_path / "a.pt", pickled.replace(b"M" + struct.pack("<H", 1000), long))
    with pytest.raises(RuntimeError):
        load_tensor_file(tmp_path / "a.pt")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_lying_length_in_an_old_file_takes_no_memory(tmp_path):
    import resource

    save_as_before_2020({"a": torch.zeros(3)}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    text = b"X\x0d\x00\x00\x00little_endian"
    assert text in content
    (tmp_path / "a.pt").write_bytes(content.replace(text, b"X\xff\xff\xff\xff" + text[5:]))
    status = Path("/proc/self/status").read_text().splitlines()
    in_use = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmSize:"))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 30), before[1]))
    try:
        with pytest.raises(ValueError, match="expected 4294967295 bytes"):
            load_tensor_file(tmp_path / "a.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_what_looks_like_an_archive_from_behind_is_looked_through_as_pytorch_does(tmp_path):
    """PyTorch tells an archive by its first bytes, zipfile by its last."""
    harmless = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, harmless)
    path, touched = tmp_path / "a.pt", tmp_path / "touched"
    save_as_before_2020(Exploit(touched), path)
    path.write_bytes(path.read_bytes() + harmless.getvalue())
    assert zipfile.is_zipfile(path)
    with pytest.raises(pickle.UnpicklingError, match="posix system"):
        load_tensor_file(path)
    assert not touched.exists()
