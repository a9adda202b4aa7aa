"""Checkpoints: weights, and what they are of, in one safetensors file that can run no code.

The network's weights are tensors under the names of its state dict. `CheckpointFacts`, as JSON in
the file's metadata, holds all else. The last checkpoint of a run also holds what an exact resume
needs: the optimizer's tensors, and a `TrainingState` among the facts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from src.experiments.experiment import Experiment, with_defaults
from src.experiments.old_checkpoints import OLD_VERSION, read_old_checkpoint
from src.experiments.runs import MAX_EPOCH, OLD_CHECKPOINT_SUFFIX, Fold, ModelName, Tag
from src.structures import Precision
from src.system.errors import InputError
from src.system.records import build_record, show_value, within
from src.system.tensor_files import load_tensors, save_tensors

FORMAT: Literal["pneumonia-checkpoint"] = "pneumonia-checkpoint"
FORMAT_VERSION: Literal[2] = 2
FACTS_KEY = "checkpoint"  # of the file's metadata
OPTIMIZER_PREFIX = "optimizer."  # of tensors that are no weights


class CheckpointError(InputError):
    """A checkpoint that is missing, broken, or of another experiment."""


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What an exact resume needs, beside tensors.

    Attributes:
        param_groups, scheduler, scaler: as `training.optimizer.Optimization` gives them.
        history: a row for each epoch that is done; a number may be infinite or no number.
        progress: as `training.progress.Progress` gives it.
        seed, precision: what must be the same, beside the experiment.
    """

    param_groups: tuple[dict[str, Any], ...]
    scheduler: dict[str, Any]
    scaler: dict[str, Any]
    history: tuple[dict[str, float], ...]
    progress: dict[str, Any]
    seed: int
    precision: Precision


@dataclass(frozen=True, kw_only=True)
class SharedFacts:
    """What a file that is shared says of its weights, beside what each checkpoint does.

    Attributes:
        best: the best setting that check_metric found, as `scoring.sweep.BestSetting`; None where
            the epoch was not scored.
        class_names: in the order of the global head's outputs.
        pretraining: what the training began with, in words.
        data_fingerprint: of the labels and images that it was trained and validated on.
        licence: of the weights; an SPDX identifier, or "unknown".
        versions: of Python and of the packages that trained it.
        git_commit: of the code that trained it.
    """

    best: dict[str, Any] | None
    class_names: tuple[str, ...]
    pretraining: str
    data_fingerprint: str
    licence: str
    versions: dict[str, str]
    git_commit: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What a checkpoint says of its weights, as the file's metadata hold it.

    Attributes:
        experiment: the name of the experiment.
        settings: all that the name stands for.
        epoch: the last epoch that was trained, from 0; -1 within the first one.
        tag: of the run.
        fold: that was held out for validation; None where an older version wrote the file.
        training: None in a checkpoint of weights alone.
        shared: None in the checkpoints of a run.
    """

    experiment: ModelName
    settings: Experiment
    epoch: Annotated[int, within(-1, MAX_EPOCH, "an epoch")]
    tag: Tag = ""
    fold: Fold | None = None
    training: TrainingState | None = None
    shared: SharedFacts | None = None
    format: Literal["pneumonia-checkpoint"] = FORMAT
    version: Literal[2] = FORMAT_VERSION


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        facts: what the weights are of.
        model: the network's state dict.
        optimizer: the optimizer's tensors by `<parameter>.<name>`; none beside weights alone.
    """

    facts: CheckpointFacts
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        optimizer = {f"{OPTIMIZER_PREFIX}{name}": value for name, value in self.optimizer.items()}
        # Python writes every number with the digits that give it back. Infinity and NaN, which
        # strict JSON lacks, occur in the state of a training alone: this project reads it.
        facts = json.dumps(asdict(self.facts))
        save_tensors(path, self.model | optimizer, {"format": "pt", FACTS_KEY: facts})


def load_checkpoint(
    path: Path, experiment: str | None = None, *, resume: bool = False
) -> Checkpoint:
    """Read a checkpoint and check that it belongs to an experiment.

    Args:
        path: by its ending, a checkpoint of today or one of version 1.
        experiment: its name; None takes any.
        resume: require the state of a training, and compare checksums; else the numbers are read
            only when they are used.

    Raises:
        CheckpointError: missing, broken, not ours, or of another experiment.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    read = read_old_checkpoint if path.suffix == OLD_CHECKPOINT_SUFFIX else _read
    try:
        values, model, optimizer = read(path, checked=resume)
    except OSError as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint: {error.strerror or error}"
        ) from error
    except Exception as error:  # a damaged file makes the readers raise almost anything
        # PyTorch's own words advise to load without weights_only, which runs what is in the file.
        raise CheckpointError(
            f"{path}: not a readable checkpoint: damaged, or more than tensors and plain values"
        ) from error
    facts = _check_facts(path, values)
    if experiment not in (None, facts.experiment):
        raise CheckpointError(
            f"{path}: belongs to experiment {show_value(facts.experiment)}, not {experiment!r}"
        )
    if resume and facts.training is None:
        raise CheckpointError(f"{path}: holds weights only; a training cannot go on from it")
    return Checkpoint(facts=facts, model=model, optimizer=optimizer)


def load_weights(
    model: nn.Module, checkpoint: Checkpoint, path: Path, *, assign: bool = False
) -> None:
    """Put a checkpoint's weights into a network.

    Args:
        path: of the checkpoint, for the message.
        assign: take the checkpoint's tensors themselves instead of copying their values.

    Raises:
        CheckpointError: keys, shapes or types differ: the weights are of another network.
    """
    difference = _first_difference(model.state_dict(), checkpoint.model)
    if difference is not None:
        raise CheckpointError(f"{path}: does not fit the network: {difference}")
    model.load_state_dict(checkpoint.model, assign=assign)


def _read(path: Path, *, checked: bool) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    """Read a checkpoint of today; see `read_old_checkpoint`."""
    tensors, metadata = load_tensors(path, checked=checked)
    model: dict[str, Tensor] = {}
    optimizer: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(OPTIMIZER_PREFIX):
            optimizer[name.removeprefix(OPTIMIZER_PREFIX)] = tensor
        else:
            model[name] = tensor
    return json.loads(metadata.get(FACTS_KEY, "null")), model, optimizer


def _check_facts(path: Path, values: object) -> CheckpointFacts:
    """Check what a checkpoint says of itself, in one place for all versions."""
    if not isinstance(values, Mapping) or values.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this project")
    if values.get("version") not in (FORMAT_VERSION, OLD_VERSION):
        raise CheckpointError(f"{path}: not a checkpoint of format version {FORMAT_VERSION}")
    settings = values.get("settings")
    if isinstance(settings, Mapping):
        settings = with_defaults(settings)
    known = {**values, "version": FORMAT_VERSION, "settings": settings}
    try:
        return build_record(CheckpointFacts, known)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of format version {FORMAT_VERSION}: {error}"
        ) from error


def _first_difference(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> str | None:
    """Say where the names, shapes or types of two state dicts differ first."""
    for name, tensor in own.items():
        if name not in saved:
            return f"{name} is missing"
        for what in ("shape", "dtype"):
            ours, its = getattr(tensor, what), getattr(saved[name], what)
            if ours != its:
                shown = [tuple(value) if what == "shape" else value for value in (its, ours)]
                return f"{name} has {what} {shown[0]}, not {shown[1]}"
    left_over = next((name for name in saved if name not in own), None)
    return None if left_over is None else f"{show_value(left_over)} is left over"
