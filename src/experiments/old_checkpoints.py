"""Checkpoints of version 1, files of torch.save, whose runs are still read and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from src.system.tensor_files import ZIP_MAGIC, load_torch_file

OLD_VERSION = 1


def read_old_checkpoint(
    path: Path, *, checked: bool
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Read a checkpoint of version 1.

    Returns:
        What `checkpoints.CheckpointFacts` declares, not checked yet; the network's weights; the
        optimizer's tensors.

    Raises:
        ValueError: it is no such checkpoint.
        Exception: of nearly any kind; the file is damaged or something else.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:  # PyTorch would go on to try a bare pickle
            raise ValueError("no file of torch.save")
    content = load_torch_file(path, checked=checked)
    if not isinstance(content, dict):
        raise ValueError("no checkpoint of this project")
    values = {
        name: content.get(name) for name in ("format", "version", "experiment", "settings", "epoch")
    }
    training = content.get("training")
    plain, optimizer = _split_training(training) if training else (None, {})
    return (
        values | {"training": plain},
        _only_tensors(content.get("model")),
        _only_tensors(optimizer),
    )


def _split_training(training: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401
    """Take the optimizer's tensors out of the state that a training resumes from."""
    values = dict(training)
    optimizer = values.pop("optimizer")
    tensors = {
        f"{index}.{name}": value
        for index, state in optimizer["state"].items()
        for name, value in state.items()
        if value is not None  # as SGD keeps for a parameter that has not moved yet
    }
    return values | {"param_groups": optimizer["param_groups"]}, tensors


def _only_tensors(values: object) -> dict[str, Tensor]:
    if not isinstance(values, Mapping):
        raise ValueError("no named tensors")
    for name, value in values.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ValueError("not named tensors")
    return dict(values)
