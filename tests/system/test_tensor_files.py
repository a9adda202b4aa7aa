import io
import pickle
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from src.system.tensor_files import load_tensors, load_torch_file, save_tensors
from tests.hostile_files import Exploit

STATUS = Path("/proc/self/status")
TENSORS = {
    "matrix": torch.rand(3, 4),
    "nothing": torch.zeros(0, 5),
    "one": torch.tensor(7),
    "half": torch.rand(5).half(),
    "brain": torch.rand(3).bfloat16(),
    "double": torch.tensor([0.1, torch.inf, -0.0, torch.nan], dtype=torch.float64),
    "bytes": torch.arange(3, dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
    "n": torch.arange(4, dtype=torch.int32),
    "short": torch.tensor([-300, 300], dtype=torch.int16),
    "signed": torch.tensor([-3, 3], dtype=torch.int8),
}


def save_zipped(content, path):
    torch.save(content, path)


def save_as_before_2020(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickled(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


def bits_of(tensors):
    return {
        name: (tensor.dtype, tensor.shape, tensor.contiguous().view(-1).view(torch.uint8).tolist())
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("checked", [True, False])
def test_tensors_and_texts_come_back_bit_for_bit(tmp_path, checked):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"facts": '{"ä": "\\n"}'})
    tensors, metadata = load_tensors(path, checked=checked)
    assert bits_of(tensors) == bits_of(TENSORS)
    assert metadata == {"facts": '{"ä": "\\n"}'}


def test_the_librarys_reader_reads_what_is_written(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {})
    assert bits_of(load_file(path)) == bits_of(TENSORS)


def test_what_the_librarys_writer_writes_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    tensors, metadata = load_tensors(tmp_path / "a.safetensors", checked=False)
    assert bits_of(tensors) == bits_of(TENSORS)
    assert metadata == {}
    with pytest.raises(ValueError, match="not as it was written"):  # it has no checksum
        load_tensors(tmp_path / "a.safetensors", checked=True)


def test_tensors_that_share_memory_or_lie_in_another_order_are_written(tmp_path):
    """The library's own writer refuses them."""
    image = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    base = torch.arange(10.0)
    tensors = {"tied": base, "again": base, "part": base[2:6], "turned": image, "every": base[::3]}
    save_tensors(tmp_path / "a.safetensors", tensors, {})
    loaded, _ = load_tensors(tmp_path / "a.safetensors", checked=True)
    assert bits_of(loaded) == bits_of(tensors)


def test_numbers_are_read_when_they_are_used_and_the_file_stays_as_it_is(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.zeros(1000)}, {})
    before = path.read_bytes()
    tensors, _ = load_tensors(path, checked=False)
    tensors["a"].add_(1)
    assert path.read_bytes() == before


def test_numbers_lie_at_multiples_of_their_size(tmp_path):
    save_tensors(tmp_path / "a.safetensors", TENSORS, {"length": "odd"})
    for tensor in load_tensors(tmp_path / "a.safetensors", checked=False)[0].values():
        assert tensor.data_ptr() % tensor.element_size() == 0


@pytest.mark.parametrize("place", ["number", "text"])
def test_a_checksum_finds_what_has_changed(tmp_path, place):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.zeros(100)}, {"facts": "epoch 15"})
    content = bytearray(path.read_bytes())
    if place == "number":
        content[-200] ^= 1
    else:
        content = content.replace(b"epoch 15", b"epoch 16")
    path.write_bytes(content)
    load_tensors(path, checked=False)
    with pytest.raises(ValueError, match="not as it was written"):
        load_tensors(path, checked=True)


def test_a_header_that_asks_for_more_than_is_there_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.zeros(100)}, {})
    whole = path.read_bytes()
    for wrong in (
        whole.replace(b'"shape":[100]', b'"shape":[900]'),
        whole.replace(b'"data_offsets":[0,400]', b'"data_offsets":[0,900]'),
        b"\xff" * 8 + whole[8:],
        whole[:-1],
    ):
        assert wrong != whole
        path.write_bytes(wrong)
        with pytest.raises(SafetensorError):
            load_tensors(path, checked=False)


@pytest.mark.parametrize("save", [save_zipped, save_as_before_2020])
def test_tensors_and_plain_values_of_torch_save_come_back(tmp_path, save):
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
    loaded = load_torch_file(tmp_path / "a.pt")
    assert isinstance(loaded, dict)
    assert str(loaded) == str(content)


@pytest.mark.parametrize("save", [save_zipped, save_as_before_2020, save_pickled])
@pytest.mark.parametrize("wrap", [lambda exploit: exploit, lambda exploit: {"model": [exploit]}])
def test_a_command_in_a_file_does_not_run(tmp_path, save, wrap):
    path, touched = tmp_path / "a.pt", tmp_path / "touched"
    save(wrap(Exploit(touched)), path)
    with pytest.raises(pickle.UnpicklingError):
        load_torch_file(path)
    assert not touched.exists()
    if save is save_pickled:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert touched.exists(), "the command runs where it is let in"


def test_a_command_in_an_archive_that_looks_harmless_from_behind_does_not_run(tmp_path):
    """PyTorch tells an archive by its first bytes, zipfile by its last."""
    harmless = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, harmless)
    path, touched = tmp_path / "a.pt", tmp_path / "touched"
    save_as_before_2020(Exploit(touched), path)
    path.write_bytes(path.read_bytes() + harmless.getvalue())
    assert zipfile.is_zipfile(path)
    with pytest.raises(pickle.UnpicklingError):
        load_torch_file(path)
    assert not touched.exists()


def test_a_compressed_file_of_torch_save_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    with pytest.raises(ValueError, match="compressed"):
        load_torch_file(path)


@pytest.mark.skipif(not STATUS.exists(), reason="needs Linux's /proc")
def test_a_lying_length_in_an_old_file_takes_no_memory(tmp_path):
    import resource

    save_as_before_2020({"a": torch.zeros(3)}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    text = b"X\x0d\x00\x00\x00little_endian"
    assert text in content
    (tmp_path / "a.pt").write_bytes(content.replace(text, b"X\xff\xff\xff\xff" + text[5:]))
    lines = STATUS.read_text().splitlines()
    in_use = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmSize:"))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 30), before[1]))
    try:
        with pytest.raises(Exception, match=r".") as caught:
            load_torch_file(tmp_path / "a.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not isinstance(caught.value, MemoryError)
