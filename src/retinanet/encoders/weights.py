"""Find the file with an encoder's pretrained weights, and load it."""

import logging
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor

from src.retinanet.encoders import family_of
from src.retinanet.encoders.encoder import Encoder, list_keys
from src.retinanet.encoders.named_weights import NAMED_WEIGHTS, Layout
from src.retinanet.encoders.renamed_weights import LAYOUTS
from src.retinanet.encoders.weight_sources import WeightSource
from src.system.errors import InputError
from src.system.files import make_dir
from src.system.tensor_files import load_tensors, load_torch_file

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth")


class WeightsError(InputError):
    """Pretrained weights that cannot be had, or a file that does not hold them."""


def find_weights(
    name: str,
    *,
    weights_dir: Path,
    encoder_weights: Path | None = None,
    named: str | None = None,
) -> Path:
    """Return the file with an encoder's pretrained weights; download it if need be.

    Looked for in this order: `encoder_weights`; `<name>.safetensors` and `<name>.pth` in
    `weights_dir` (`timm/<model>` is `timm_<model>` there); the places that the encoder's family
    names: a Python package that is installed, the Hugging Face hub, torchvision's or timm's own
    server, pretrainedmodels' old one.

    Args:
        name: an encoder as for `build_encoder`.
        weights_dir: the folder that downloads go to; made if need be.
        encoder_weights: a file to be used whatever else there is.
        named: a key of `NAMED_WEIGHTS`, whose weights are looked for under that name and at its
            sources.

    Raises:
        InputError: there is no such encoder.
        WeightsError: the file does not exist, or nothing could be downloaded.
    """
    if encoder_weights is not None:
        if not encoder_weights.is_file():
            raise WeightsError(f"{encoder_weights}: no such file of weights for {name}")
        return encoder_weights
    stem = named or name.replace("/", "_")
    for suffix in SUFFIXES:
        kept = weights_dir / f"{stem}{suffix}"
        if kept.is_file():
            return kept
    if named is not None and not NAMED_WEIGHTS[named].sources:
        raise WeightsError(
            f"no pretrained weights {named}: save them as {weights_dir / f'{stem}.pth'}; "
            f"{NAMED_WEIGHTS[named].by_hand} ({NAMED_WEIGHTS[named].page})"
        )
    sources = NAMED_WEIGHTS[named].sources if named else family_of(name).weight_sources(name)
    if not sources:
        raise WeightsError(f"nobody is known to publish pretrained weights of {name}")
    return _download(name, sources, weights_dir, stem)


def load_encoder_weights(
    encoder: Encoder, name: str, path: Path, layout: Layout = "encoder"
) -> None:
    """Copy pretrained weights into an encoder, every one of them or none.

    Args:
        encoder: as `build_encoder(name)` gives it.
        name: the encoder's name, for the message.
        path: a `.safetensors` file or one of `torch.save` that holds tensors alone.
        layout: how the file names them.

    Raises:
        WeightsError: the file cannot be read, or does not hold this encoder's weights.
    """
    settings = LAYOUTS[layout]
    state = _read_tensors(path, settings.inside)
    try:
        encoder.load_pretrained(settings.rename(state), has_classifier=settings.has_classifier)
    except ValueError as error:
        raise WeightsError(f"{path}: these are not the weights of {name}; {error}") from error


def _read_tensors(path: Path, inside: Iterable[str]) -> dict[str, Tensor]:
    """Read names and tensors from a file without running anything that it may contain.

    Args:
        inside: see `FileLayout`.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights")
    try:
        state: Any = (
            load_tensors(path, checked=False)[0]
            if path.suffix == ".safetensors"
            else load_torch_file(path)
        )
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: damaged, or more than tensors in it, which is not loaded for safety; "
            "a file made by torch.save(net.state_dict()) or a .safetensors file would be right"
        ) from error
    except Exception as error:  # a damaged file makes the readers raise almost anything
        raise WeightsError(
            f"{path}: not a file of weights, or a damaged one ({_first_line(error)})"
        ) from error
    for key in inside:  # as training scripts wrap it
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path}: no named tensors in it")
    strange = [
        str(key)
        for key, value in state.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if strange:
        raise WeightsError(f"{path}: not named tensors: {list_keys(strange)}")
    return state


def _download(name: str, sources: tuple[WeightSource, ...], folder: Path, stem: str) -> Path:
    """Try the sources in turn; say how to do it by hand if none works."""
    make_dir(folder)
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
