"""Save and load weights; nothing in a checkpoint can run code.

A checkpoint is a dict of tensors and plain values: `model` (state dict), `experiment` (its name),
`settings` (the experiment's), `epoch`; the last one of a run also holds `training`, what an exact
resume needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.system.errors import InputError
from src.system.files import OutputError, replaced_file
from src.system.tensor_files import ZIP_MAGIC, load_tensor_file

FORMAT = "pneumonia-checkpoint"
FORMAT_VERSION = 1
FIELDS = {
    "format": str,
    "version": int,
    "experiment": str,
    "settings": dict,
    "epoch": int,
    "model": dict,
    "training": dict,
}


class CheckpointError(InputError):
    """A checkpoint that is missing, broken, or of another experiment."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        experiment: a name in `table.EXPERIMENTS`.
        settings: the experiment's, plain values; `experiment.with_defaults` completes older ones.
        epoch: the last epoch that was trained, from 0.
        model: the network's state dict.
        training: state of optimizer, scheduler and history; empty in weights-only checkpoints.
    """

    experiment: str
    settings: dict[str, Any]
    epoch: int
    model: dict[str, Tensor]
    training: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        content = {name: getattr(self, name, None) for name in FIELDS}
        content |= {"format": FORMAT, "version": FORMAT_VERSION}
        with replaced_file(path) as temporary:
            try:
                torch.save(content, temporary)
            except RuntimeError as error:  # PyTorch's writer, where the disk is full
                raise OutputError(f"{path}: cannot be written: is the disk full?") from error


def load_checkpoint(path: Path, experiment: str, *, resume: bool = False) -> Checkpoint:
    """Read a checkpoint and check that it belongs to an experiment.

    Args:
        resume: read the training state as well, and require it.

    Raises:
        CheckpointError: missing, broken, not ours, or of another experiment.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        if not is_zip:  # PyTorch would go on to try a bare pickle, and warn
            raise CheckpointError(f"{path}: not a readable checkpoint: no file of torch.save")
        # Weights are read from the file when they are used; a state that will be changed is copied.
        content = load_tensor_file(path, mapped=not resume)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: {error.strerror}") from error
    except Exception as error:  # a damaged file makes the reader raise almost anything
        # PyTorch's own words advise to load without weights_only, which runs what is in the file.
        raise CheckpointError(
            f"{path}: not a readable checkpoint: damaged, or more than tensors and plain values"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this project")
    wrong = [name for name, kind in FIELDS.items() if not isinstance(content.get(name), kind)]
    if wrong or content["version"] != FORMAT_VERSION:
        raise CheckpointError(f"{path}: not a checkpoint of format version {FORMAT_VERSION}")
    if content["experiment"] != experiment:
        raise CheckpointError(
            f"{path}: belongs to experiment {content['experiment']!r}, not {experiment!r}"
        )
    if resume and not content["training"]:
        raise CheckpointError(f"{path}: holds weights only; a training cannot go on from it")
    del content["format"], content["version"]
    return Checkpoint(**content)


def load_weights(
    model: nn.Module, checkpoint: Checkpoint, path: Path, *, assign: bool = False
) -> None:
    """Put a checkpoint's weights into a network.

    Args:
        path: of the checkpoint, for the message.
        assign: take the checkpoint's tensors themselves instead of copying their values.

    Raises:
        CheckpointError: keys or shapes differ: it was trained with other settings.
    """
    try:
        model.load_state_dict(checkpoint.model, assign=assign)
    except RuntimeError as error:
        cause = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()
        raise CheckpointError(f"{path}: does not fit the network: {cause}") from error
