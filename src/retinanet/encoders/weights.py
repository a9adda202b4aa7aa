"""Find the file with an encoder's pretrained weights, and load it."""

import logging
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor

from src.retinanet.encoders.encoder import Encoder
from src.retinanet.encoders.weight_sources import SOURCES, HubFile, WebFile
from src.system.errors import InputError
from src.system.tensor_files import load_tensor_file

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth")

# What may stay unused of a file: the classifier, as torchvision, pretrainedmodels and timm name it.
CLASSIFIERS = ("fc.", "last_linear.", "classifier.", "classif.")
# A counter of BatchNorm that files from before PyTorch 0.4.1 do not have.
OPTIONAL = ".num_batches_tracked"

MAX_NAMED_KEYS = 8  # in an error message


class WeightsError(InputError):
    """Pretrained weights that cannot be had, or a file that does not hold them."""


def find_weights(name: str, *, weights_dir: Path, encoder_weights: Path | None = None) -> Path:
    """Return the file with an encoder's pretrained weights; download it if need be.

    Looked for in this order: `encoder_weights`; `<name>.safetensors` and `<name>.pth` in
    `weights_dir` (`timm/<model>` is `timm_<model>` there); the places of `SOURCES`: the Hugging
    Face hub, torchvision's or timm's own server, pretrainedmodels' old one.

    Args:
        name: an encoder as for `build_encoder`.
        weights_dir: the folder that downloads go to; made if need be.
        encoder_weights: a file to be used whatever else there is.

    Raises:
        WeightsError: the file does not exist, or nothing could be downloaded.
    """
    if encoder_weights is not None:
        if not encoder_weights.is_file():
            raise WeightsError(f"{encoder_weights}: no such file of weights for {name}")
        return encoder_weights
    stem = name.replace("/", "_")
    for suffix in SUFFIXES:
        kept = weights_dir / f"{stem}{suffix}"
        if kept.is_file():
            return kept
    return _download(name, _sources(name), weights_dir, stem)


def load_encoder_weights(encoder: Encoder, name: str, path: Path) -> None:
    """Copy pretrained weights into an encoder, every one of them or none.

    Args:
        encoder: as `build_encoder(name)` gives it.
        name: the encoder's name.
        path: a `.safetensors` file or one of `torch.save` that holds tensors alone.

    Raises:
        WeightsError: the file cannot be read, or does not hold this encoder's weights.
    """
    from_file = _read_tensors(path)
    if name.startswith("timm/"):
        _load_timm(encoder, name, path, from_file)
        return
    own_keys = {_source_key(key): key for key in encoder.state_dict()}
    wanted = {_source_key(key): tensor for key, tensor in encoder.state_dict().items()}
    found = {_source_key(key): tensor for key, tensor in from_file.items()}
    for key, tensor in found.items():
        # Kept from the original: some files hold Xception's 1x1 convolutions as matrices.
        if key.endswith(".pointwise.weight") and tensor.ndim == 2:
            found[key] = tensor[:, :, None, None]
    _check_keys(name, path, wanted, found)
    encoder.load_state_dict(
        {own_keys[key]: tensor for key, tensor in found.items() if key in own_keys}, strict=False
    )


def _source_key(key: str) -> str:
    """Return a parameter's name as in the network that an encoder was made from."""
    return key.removeprefix("net.")


def _check_keys(name: str, path: Path, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Raise WeightsError unless `found` fills `wanted` and only a classifier is left."""
    missing = [key for key in wanted if key not in found and not key.endswith(OPTIONAL)]
    left_over = [key for key in found if key not in wanted and not key.startswith(CLASSIFIERS)]
    misshapen = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    problems = [
        f"{problem}: {_first(keys)}"
        for problem, keys in (
            ("missing", missing),
            ("left over", left_over),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise WeightsError(f"{path}: these are not the weights of {name}; {'; '.join(problems)}")


def _first(keys: list[str]) -> str:
    more = len(keys) - MAX_NAMED_KEYS
    return ", ".join(keys[:MAX_NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")


def _load_timm(encoder: Encoder, name: str, path: Path, state: dict[str, Tensor]) -> None:
    """Let timm's network check and take its own weights."""
    from src.retinanet.encoders.timm_encoder import REFUSALS, TimmEncoder

    assert isinstance(encoder, TimmEncoder)
    try:
        encoder.load_pretrained(state)
    except REFUSALS as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: these are not the weights of {name}; {reason}") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read names and tensors from a file without running anything that it may contain."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = load_tensor_file(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: damaged, or more than tensors in it, which is not loaded for safety; "
            "a file made by torch.save(net.state_dict()) or a .safetensors file would be right"
        ) from error
    except Exception as error:  # a damaged file makes the readers raise almost anything
        raise WeightsError(
            f"{path}: not a file of weights, or a damaged one ({_first_line(error)})"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # as training scripts wrap it
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path}: no named tensors in it")
    strange = [
        str(key)
        for key, value in state.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if strange:
        raise WeightsError(f"{path}: not named tensors: {_first(strange)}")
    return state


def _sources(name: str) -> tuple[HubFile | WebFile, ...]:
    """Return the places that keep the weights of `name`; for timm's networks timm knows them."""
    if name in SOURCES:
        return SOURCES[name]
    if not name.startswith("timm/"):
        raise WeightsError(f"no pretrained weights are known of {name!r}; of {', '.join(SOURCES)}")
    from src.retinanet.encoders.timm_encoder import model_settings

    settings = model_settings(name.removeprefix("timm/"))
    sources: list[HubFile | WebFile] = []
    if settings is not None and settings.hf_hub_id:
        sources.append(HubFile(settings.hf_hub_id, settings.hf_hub_filename or "model.safetensors"))
    if settings is not None and settings.url:
        sources.append(WebFile(settings.url))
    if not sources:
        raise WeightsError(f"timm publishes no pretrained weights of {name}")
    return tuple(sources)


def _download(name: str, sources: tuple[HubFile | WebFile, ...], folder: Path, stem: str) -> Path:
    """Try the sources in turn; say how to do it by hand if none works."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"{folder}: cannot be made to keep weights in ({error})") from error
    failures = []
    for source in sources:
        try:
            path = source.download(folder, stem)
        except (OSError, RuntimeError) as error:  # no network, no such file, a wrong hash
            failures.append(f"{urlsplit(source.url).hostname}: {_first_line(error)}")
            continue
        if failures:
            logger.warning("weights of %s come from %s; %s", name, source.url, "; ".join(failures))
        return path
    by_hand = folder / f"{stem}{sources[0].suffix}"
    raise WeightsError(
        f"no pretrained weights of {name}: download {sources[0].url} where there is a network "
        f"and save it as {by_hand} ({'; '.join(failures)})"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
