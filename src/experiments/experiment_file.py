"""How a run is made: its samples, and its experiment.json, read back to make it again."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from src.datasets.sample_options import SampleOptions
from src.experiments.experiment import Experiment, with_defaults
from src.experiments.runs import Fold, ModelName, Run, read_description
from src.structures import Precision
from src.system.errors import InputError
from src.system.files import sha256_of, write_json
from src.system.records import Rule, build_record, check_fields

VERSIONED = ("torch", "torchvision", "numpy", "opencv-python-headless", "pydicom", "simplejpeg",
             "imagecodecs", "timm", "pretrainedmodels")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file of weights from elsewhere.

    Attributes:
        path: where it lay.
        sha256: of the file; None where an older version told the path alone.
    """

    path: str
    sha256: str | None

    @classmethod
    def at(cls, path: Path) -> WeightsFile:
        """Describe the file at a path."""
        return cls(path=str(path.resolve()), sha256=sha256_of(path))


@dataclass(frozen=True, kw_only=True)
class StoredTraining:
    """What has to be the same for a training to be the same.

    Attributes:
        model: name of the experiment.
        fold: that is held out for validation.
        settings: all that the experiment's name stands for, changes by flags included.
        seed: of order, augmentation, first weights and dropout.
        precision: of the arithmetic.
        data_fingerprint: of labels and images.
        split_fingerprint: of which images are trained on and which are held out; None where an
            older version wrote the file.
        init_weights: the checkpoint of another training that this one began with; None where the
            weights were drawn, or are the encoder's pretrained ones.
        encoder_weights: the file of the encoder's pretrained weights; None where it has none.
        weights_path: the checkpoint of an epoch that the training went on from by --from-epoch;
            None where it began at epoch 0.
    """

    model: ModelName
    fold: Fold
    settings: Experiment
    seed: Annotated[int, Rule(lambda n: n >= 0, "a whole number from 0")]
    precision: Precision
    data_fingerprint: str
    split_fingerprint: str | None = None
    init_weights: WeightsFile | None = None
    encoder_weights: WeightsFile | None = None
    weights_path: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def write_stored_training(run: Run, stored: StoredTraining, details: Mapping[str, Any]) -> None:
    """Write a training's experiment.json: the experiment, and what else tells where it ran."""
    content = {"tag": run.tag, **asdict(stored), **details}
    write_description(run.experiment_path, content)


BY_PATIENCE = "--patience"  # ended a training before its last epoch


def note_end(run: Run, ended_by: str | None, n_epochs: int) -> None:
    """Note in a training's experiment.json what ended it, and how many epochs it has by now.

    Args:
        ended_by: "all epochs", `BY_PATIENCE`, "--max-hours" or a signal's name; None while it runs,
            and so after it was killed or has failed.
        n_epochs: of the whole training; one that is resumed may have another number.
    """
    content = read_description(run.experiment_path)
    settings = content.get("settings")
    if isinstance(settings, dict):
        noted = {"settings": {**settings, "n_epochs": n_epochs}, "ended_by": ended_by}
        write_json(run.experiment_path, content | noted)


def write_description(path: Path, content: Mapping[str, Any]) -> None:
    """Write an experiment.json: what was made, when, by which command, versions and code."""
    made_by = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONED},
        "git_commit": git_commit(),
    }
    write_json(path, {**content, **made_by})


def read_stored_training(path: Path) -> StoredTraining:
    """Read what an experiment.json says about a training.

    A setting that the file lacks came after the version that wrote it: `with_defaults`.

    Raises:
        InputError: the file is missing, is no JSON, or lacks a field or has a wrong one.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; --action train writes one for every run")
    content = read_description(path)
    names = [field.name for field in fields(StoredTraining)]
    values = {name: content[name] for name in names if name in content}
    if isinstance(values.get("settings"), dict):
        values["settings"] = with_defaults(values["settings"])
    if isinstance(path_alone := values.get("encoder_weights"), str):  # of an older version
        values["encoder_weights"] = {"path": path_alone, "sha256": None}
    try:
        return build_record(StoredTraining, values)
    except ValueError as error:
        raise InputError(f"{path}: not an experiment.json of this version: {error}") from error


def sample_options(experiment: Experiment, seed: int = 0) -> SampleOptions:
    """Take from an experiment what shapes its samples."""
    return SampleOptions(
        img_size=experiment.img_size,
        shown=experiment.shown,
        augmentation_level=experiment.augmentation_level,
        box_points=experiment.box_points,
        hflip=experiment.hflip,
        clip_boxes=experiment.clip_boxes,
        grey=experiment.grey,
        reduction=experiment.reduction,
        seed=seed,
    )


def git_commit() -> str | None:
    """Return the commit of the code that runs, "+" behind it where files were changed."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+",
                   "--abbrev=40"]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
