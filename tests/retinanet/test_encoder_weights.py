"""Pretrained weights: where they are looked for, and that a file fits wholly or not at all."""

import hashlib
import os
import pickle
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from src.experiments.table import EXPERIMENTS
from src.retinanet.encoders import ENCODERS, build_encoder, family_of, weights
from src.retinanet.encoders.encoder import Encoder
from src.retinanet.encoders.weight_sources import HubFile, WebFile
from src.retinanet.encoders.weights import WeightsError, find_weights, load_encoder_weights
from src.system.errors import InputError
from src.system.files import OutputError

SOURCES = {name: family_of(name).weight_sources(name) for name in ENCODERS}

# timm's networks that hold the weights of the release; there is no NASNet-A-Mobile in timm.
TIMM_NAMES = {
    **{name: name for name in ENCODERS if name.startswith("resnet")},
    "se_resnext50": "legacy_seresnext50_32x4d",
    "se_resnext101": "legacy_seresnext101_32x4d",
    "xception": "legacy_xception",
    "inceptionresnetv2": "inception_resnet_v2",
    "pnasnet5large": "pnasnet5large",
    "dpn92": "dpn92",
}

# pretrainedmodels' modules and names of the files that the release was trained from.
OLD_SETTINGS = {
    "se_resnext50": ("senet", "se_resnext50_32x4d", "imagenet"),
    "se_resnext101": ("senet", "se_resnext101_32x4d", "imagenet"),
    "inceptionresnetv2": ("inceptionresnetv2", "inceptionresnetv2", "imagenet"),
    "nasnet_mobile": ("nasnet_mobile", "nasnetamobile", "imagenet"),
    "pnasnet5large": ("pnasnet", "pnasnet5large", "imagenet"),
    "dpn92": ("dpn", "dpn92", "imagenet+5k"),
}


def loaded_encoder(name: str, path: Path, **options: int) -> Encoder:
    encoder = build_encoder(name, **options)
    load_encoder_weights(encoder, name, path)
    return encoder


def old_network(name: str) -> nn.Module:
    """Build the network whose state dict is the file on the old server."""
    if name == "xception":  # its file has `fc`, as the class; the function renames it
        from pretrainedmodels.models.xception import Xception

        return Xception()
    module, function, _ = OLD_SETTINGS[name]
    return getattr(old_module(module), function)(pretrained=None)


def old_module(name: str) -> ModuleType:
    return import_module(f"pretrainedmodels.models.{name}")


def scrambled(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a state dict in which no two tensors are alike, statistics of batch norm included."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: 0.5 + torch.rand(tensor.shape, generator=generator)
        if key.endswith("running_var")
        else 0.05 * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor
        for key, tensor in network.state_dict().items()
    }


@pytest.fixture(scope="module")
def resnet_state() -> dict[str, torch.Tensor]:
    return scrambled(torchvision.models.resnet18())


@pytest.fixture
def encoder() -> Encoder:
    return build_encoder("resnet18")


# Do the published files fit?


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_timms_keys_and_shapes_all_find_their_place(name, monkeypatch):
    with torch.device("meta"):
        encoder, network = build_encoder(name), timm.create_model(TIMM_NAMES[name])
    monkeypatch.setattr(weights, "_read_tensors", lambda path, inside: network.state_dict())
    load_encoder_weights(encoder, name, Path("timm.safetensors"))


@pytest.mark.parametrize("name", [*OLD_SETTINGS, "xception"])
def test_pretrainedmodels_keys_and_shapes_all_find_their_place(name, monkeypatch):
    with torch.device("meta"):
        encoder, network = build_encoder(name), old_network(name)
    monkeypatch.setattr(weights, "_read_tensors", lambda path, inside: network.state_dict())
    load_encoder_weights(encoder, name, Path("old.pth"))


@pytest.mark.parametrize("name", ["resnet18", "se_resnext50", "dpn92"])
@torch.no_grad()
def test_timms_weights_give_timms_features(name, monkeypatch):
    network = timm.create_model(TIMM_NAMES[name]).eval()
    state = scrambled(network)
    network.load_state_dict(state)
    monkeypatch.setattr(weights, "_read_tensors", lambda path, inside: state)
    encoder = loaded_encoder(name, Path("timm.safetensors")).eval()
    images = torch.rand(1, 3, 64, 64)
    expected = network.forward_features(images)
    torch.testing.assert_close(encoder(images)[-1], expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0


def test_xceptions_matrices_become_1x1_convolutions(monkeypatch):
    with torch.device("meta"):
        encoder, network = build_encoder("xception"), old_network("xception")
    state = {
        key: tensor[:, :, 0, 0] if "pointwise" in key else tensor
        for key, tensor in network.state_dict().items()
    }
    monkeypatch.setattr(weights, "_read_tensors", lambda path, inside: state)
    load_encoder_weights(encoder, "xception", Path("old.pth"))


# Loading


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_copies_every_tensor(encoder, resnet_state, tmp_path, suffix):
    path = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(resnet_state, path)
    else:
        save_file(resnet_state, path)
    load_encoder_weights(encoder, "resnet18", path)
    loaded = encoder.state_dict()
    assert len(loaded) == len(resnet_state) - 2  # without the classifier
    assert all(torch.equal(loaded[key], resnet_state[key]) for key in loaded)


def test_load_takes_back_an_encoders_own_weights(tmp_path):
    first, second = (build_encoder("nasnet_mobile") for _ in range(2))
    torch.save({"state_dict": first.state_dict()}, tmp_path / "own.pth")
    load_encoder_weights(second, "nasnet_mobile", tmp_path / "own.pth")
    loaded = second.state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in first.state_dict().items())


def test_load_does_without_batch_counters(encoder, resnet_state, tmp_path):
    state = {key: tensor for key, tensor in resnet_state.items() if "num_batches" not in key}
    torch.save(state, tmp_path / "old.pth")
    load_encoder_weights(encoder, "resnet18", tmp_path / "old.pth")
    assert torch.equal(encoder.state_dict()["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.0.bn1.weight"), r"missing: layer1\.0\.bn1\.weight$"),
        (lambda state: state.update(extra=torch.ones(1)), r"left over: extra$"),
        (
            lambda state: state.update({"conv1.weight": torch.ones(64, 1, 7, 7)}),
            r"of another shape: conv1\.weight \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)$",
        ),
    ],
    ids=["missing", "left over", "misshapen"],
)
def test_load_names_file_and_keys_that_do_not_fit(encoder, resnet_state, tmp_path, change, message):
    before = encoder.state_dict()["layer4.1.conv2.weight"].clone()
    state = dict(resnet_state)
    change(state)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=rf"odd\.pth: .* of resnet18; {message}"):
        load_encoder_weights(encoder, "resnet18", tmp_path / "odd.pth")
    assert torch.equal(encoder.state_dict()["layer4.1.conv2.weight"], before)


def test_load_of_another_network_names_some_keys_and_counts_the_rest(resnet_state, tmp_path):
    torch.save(resnet_state, tmp_path / "resnet18.pth")
    with pytest.raises(WeightsError, match=r"missing: layer0\.conv1\.weight, .* and \d+ more;"):
        loaded_encoder("se_resnext50", tmp_path / "resnet18.pth")


class Payload:
    """Pickled, it makes the reader create a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what, protocol=2))]
)
@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
def test_load_runs_no_code_of_the_file(encoder, tmp_path, save, suffix):
    victim, path = tmp_path / "victim", tmp_path / f"evil{suffix}"
    save({"conv1.weight": Payload(victim)}, path)
    with pytest.raises(WeightsError, match=rf"evil\{suffix}: .*damaged") as caught:
        load_encoder_weights(encoder, "resnet18", path)
    assert "\n" not in str(caught.value)
    assert not victim.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("n_bytes", [0, 3, 1000, 100_000])
def test_load_reports_truncated_file_in_one_line(encoder, tmp_path, suffix, n_bytes):
    path = tmp_path / f"cut{suffix}"
    state = {"conv1.weight": torch.ones(64, 3, 7, 7), "fc.weight": torch.ones(512, 1000)}
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(WeightsError, match=rf"cut\{suffix}: .*damaged") as caught:
        load_encoder_weights(encoder, "resnet18", path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{}, [1, 2], {"conv1.weight": 3}, {1: torch.ones(1)}], ids=str)
def test_load_reports_file_without_tensors(encoder, tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"odd\.pth: (no|not) named tensors"):
        load_encoder_weights(encoder, "resnet18", tmp_path / "odd.pth")


def test_weights_error_is_the_users_to_mend():
    assert issubclass(WeightsError, InputError)


# timm's own networks


@pytest.mark.parametrize("name", ["convnext_atto", "hrnet_w18_small", "efficientnet_b0"])
@torch.no_grad()
def test_timm_encoder_with_weights_equals_whole_network(name, tmp_path):
    network = timm.create_model(name)
    save_file(scrambled(network), tmp_path / "timm.safetensors")
    network = timm.create_model(
        name,
        features_only=True,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "timm.safetensors")},
    ).eval()
    encoder = loaded_encoder(f"timm/{name}", tmp_path / "timm.safetensors").eval()
    images = torch.rand(1, 3, 64, 64)
    for level, expected in zip(encoder(images), network(images)[-4:], strict=True):
        assert torch.equal(level, expected)


def test_timm_position_table_is_fitted_to_the_input(tmp_path):
    network = timm.create_model("vit_tiny_patch16_224")
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    path = tmp_path / "vit.safetensors"
    encoder = loaded_encoder("timm/vit_tiny_patch16_224", path, img_size=96)
    state = encoder.state_dict()
    assert state["net.model.pos_embed"].shape == (1, 6 * 6 + 1, 192)
    assert torch.equal(state["net.model.blocks.3.mlp.fc1.weight"], network.blocks[3].mlp.fc1.weight)


def test_timm_encoder_names_keys_that_do_not_fit(tmp_path):
    state = timm.create_model("convnext_atto").state_dict()
    del state["stages.0.blocks.0.norm.weight"]
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(
        WeightsError, match=r"odd\.safetensors: .*stages\.0\.blocks\.0\.norm"
    ) as caught:
        loaded_encoder("timm/convnext_atto", tmp_path / "odd.safetensors")
    assert "\n" not in str(caught.value)


def test_timm_network_that_wants_another_file_for_a_part_says_so(tmp_path, monkeypatch):
    """A few of timm's hybrids download a part of themselves; here there may be no network."""
    encoder = build_encoder("timm/convnext_atto")
    save_file(timm.create_model("convnext_atto").state_dict(), tmp_path / "a.safetensors")

    def fail(*_: object, **__: object) -> None:
        raise OSError("cannot find resnet50d\non the hub")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(WeightsError, match=r"a\.safetensors: .*cannot find resnet50d on the hub$"):
        load_encoder_weights(encoder, "timm/convnext_atto", tmp_path / "a.safetensors")


def test_timm_sources_are_those_that_timm_knows(tmp_path, downloads):
    with pytest.raises(WeightsError):
        find_weights("timm/convnext_tiny.fb_in1k", weights_dir=tmp_path)
    assert downloads[0] == (
        "https://huggingface.co/timm/convnext_tiny.fb_in1k/resolve/main/model.safetensors"
    )


def test_timm_model_without_published_weights_says_so(tmp_path, downloads):
    with pytest.raises(
        WeightsError, match=r"publish pretrained weights of timm/convnext_atto_rms$"
    ):
        find_weights("timm/convnext_atto_rms", weights_dir=tmp_path)


# The table of sources


def test_every_encoder_of_a_pretrained_experiment_has_sources():
    pretrained = {each.encoder for each in EXPERIMENTS.values() if each.pretrained}
    assert all(family_of(name).weight_sources(name) for name in pretrained)
    kinds = [type(source) for places in SOURCES.values() for source in places]
    assert set(kinds) == {HubFile, WebFile}


@pytest.mark.parametrize("name", [name for name in ENCODERS if name.startswith("resnet")])
def test_sources_of_resnets_are_torchvisions_first_weights(name):
    versions = torchvision.models.get_model_weights(name)
    assert WebFile(versions["IMAGENET1K_V1"].url) in SOURCES[name]


@pytest.mark.parametrize("name", [*OLD_SETTINGS])
def test_sources_end_with_the_old_server(name):
    module, model, version = OLD_SETTINGS[name]
    assert SOURCES[name][-1] == WebFile(
        old_module(module).pretrained_settings[model][version]["url"]
    )


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_sources_begin_with_a_tag_that_timm_lists(name):
    first = SOURCES[name][0]
    assert isinstance(first, HubFile)
    assert first.repository.removeprefix("timm/") in timm.list_pretrained(f"{TIMM_NAMES[name]}.*")


def test_web_files_carry_their_hash():
    sources = [source for places in SOURCES.values() for source in places]
    web = [source for source in sources if isinstance(source, WebFile)]
    assert len(web) > len(ENCODERS)
    assert all(source.hash_prefix for source in web)
    assert WebFile("https://x.org/nasnetmobile-7e03cead.pth.tar").hash_prefix == "7e03cead"
    assert WebFile("https://x.org/se_resnext50_32x4d.pth").hash_prefix is None


# Finding and downloading


def test_find_prefers_the_given_file(tmp_path, downloads):
    (tmp_path / "resnet18.pth").touch()
    mine = tmp_path / "mine.pth"
    mine.touch()
    assert find_weights("resnet18", weights_dir=tmp_path, encoder_weights=mine) == mine


def test_find_given_file_must_exist(tmp_path, downloads):
    (tmp_path / "resnet18.pth").touch()
    with pytest.raises(WeightsError, match=r"mine\.pth: no such file of weights for resnet18"):
        find_weights("resnet18", weights_dir=tmp_path, encoder_weights=tmp_path / "mine.pth")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "resnet18.pth"),
        ("dpn92", "dpn92.safetensors"),
        ("timm/convnext_tiny", "timm_convnext_tiny.safetensors"),
    ],
)
def test_find_looks_into_the_folder_before_the_network(tmp_path, downloads, name, file):
    (tmp_path / file).touch()
    assert find_weights(name, weights_dir=tmp_path) == tmp_path / file
    assert downloads == []


def test_find_tries_hub_then_mirror_then_old_server(tmp_path, downloads):
    with pytest.raises(WeightsError):
        find_weights("se_resnext101", weights_dir=tmp_path)
    hosts = [url.split("/")[2] for url in downloads]
    assert hosts == ["huggingface.co", "github.com", "data.lip6.fr"]


def test_find_offline_says_what_to_fetch_and_where_to_put_it(tmp_path, downloads):
    folder = tmp_path / "weights"
    with pytest.raises(WeightsError) as caught:
        find_weights("resnet18", weights_dir=folder)
    message = str(caught.value)
    assert "https://huggingface.co/timm/resnet18.tv_in1k/resolve/main/model.safetensors" in message
    assert f"save it as {folder / 'resnet18.safetensors'} " in message
    assert "download.pytorch.org: no network" in message
    assert "\n" not in message


def test_find_goes_on_to_the_next_source(tmp_path, downloads, monkeypatch, caplog):
    monkeypatch.setattr(WebFile, "download", lambda source, folder, stem: folder / f"{stem}.pth")
    assert find_weights("resnet18", weights_dir=tmp_path) == tmp_path / "resnet18.pth"
    assert "huggingface.co: no network" in caplog.text


def test_find_folder_that_cannot_be_made_is_named(tmp_path, downloads):
    (tmp_path / "weights").touch()
    with pytest.raises(OutputError, match=r"weights: cannot be created as a folder"):
        find_weights("resnet18", weights_dir=tmp_path / "weights")


def test_web_file_is_checked_and_saved_under_the_encoders_name(tmp_path):
    content = b"weights"
    prefix = hashlib.sha256(content).hexdigest()[:8]
    remote = tmp_path / f"net-{prefix}.pth"
    remote.write_bytes(content)
    saved = WebFile(remote.as_uri()).download(tmp_path, "resnet18")
    assert saved == tmp_path / "resnet18.pth"
    assert saved.read_bytes() == content


def test_web_file_with_wrong_hash_is_not_kept(tmp_path):
    remote = tmp_path / "remote" / "net-00000000.pth"
    remote.parent.mkdir()
    remote.write_bytes(b"weights")
    with pytest.raises(RuntimeError, match="hash"):
        WebFile(remote.as_uri()).download(tmp_path, "resnet18")
    assert [path.name for path in tmp_path.iterdir()] == ["remote"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the Hugging Face hub; `etag` is what it publishes."""
    stand_in = SimpleNamespace(content=b"weights", etag="", asked=[])

    def download(repository: str, filename: str, *, revision: str, local_dir: str) -> str:
        stand_in.asked.append((repository, filename, revision))
        path = Path(local_dir) / filename
        path.write_bytes(stand_in.content)
        return str(path)

    def describe(url: str) -> SimpleNamespace:
        return SimpleNamespace(etag=stand_in.etag, commit_hash="abc")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", describe)
    return stand_in


def test_hub_file_is_checked_and_saved_under_the_encoders_name(tmp_path, hub):
    hub.etag = hashlib.sha256(hub.content).hexdigest()
    saved = HubFile("timm/net.in1k").download(tmp_path, "net")
    assert saved == tmp_path / "net.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    assert hub.asked == [("timm/net.in1k", "model.safetensors", "abc")]


def test_hub_file_with_wrong_hash_is_not_kept(tmp_path, hub):
    hub.etag = hashlib.sha256(b"others").hexdigest()
    with pytest.raises(RuntimeError, match="the hub published"):
        HubFile("timm/net.in1k").download(tmp_path, "net")
    assert list(tmp_path.iterdir()) == []


def test_hub_that_cannot_be_reached_is_an_os_error(tmp_path, monkeypatch):
    from huggingface_hub.errors import HTTPError

    def fail(url: str) -> None:
        raise HTTPError("connection refused")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    with pytest.raises(OSError, match="connection refused"):
        HubFile("timm/net.in1k").download(tmp_path, "net")
