"""How a run is made: its samples, and its experiment.json, read back to make it again."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from src.datasets.sample_options import SampleOptions
from src.experiments.runs import Run
from src.experiments.table import Experiment
from src.system.errors import InputError
from src.system.files import write_json

VERSIONED = ("torch", "torchvision", "numpy", "opencv-python-headless", "pydicom", "simplejpeg",
             "timm", "pretrainedmodels")  # fmt: skip


class ExperimentError(InputError):
    """An experiment.json that is missing or something else."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTraining:
    """What has to be the same for a training to be the same.

    Attributes:
        model: name of the experiment.
        fold: that is held out for validation.
        settings: all that the experiment's name stands for, changes by flags included.
        seed: of order, augmentation, first weights and dropout.
        precision: of the arithmetic.
        data_fingerprint: of labels and images.
    """

    model: str
    fold: int
    settings: Experiment
    seed: int
    precision: str
    data_fingerprint: str


def write_stored_training(run: Run, stored: StoredTraining, details: Mapping[str, Any]) -> None:
    """Write a training's experiment.json: the experiment, and what else tells where it ran."""
    content = {"tag": run.tag, **dataclasses.asdict(stored), **details}
    write_description(run.experiment_path, content)


def write_description(path: Path, content: Mapping[str, Any]) -> None:
    """Write an experiment.json: what was made, by which command, which versions and which code."""
    made_by = {
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONED},
        "git_commit": git_commit(),
    }
    write_json(path, {**content, **made_by})


def read_stored_training(path: Path) -> StoredTraining:
    """Read what an experiment.json says about a training.

    Raises:
        ExperimentError: missing, no JSON, or without one of the fields or with a wrong one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExperimentError(f"{path}: not a readable experiment.json: {error}") from error
    try:
        fields = {field.name: content[field.name] for field in dataclasses.fields(StoredTraining)}
        settings = fields["settings"] | {
            "pyramid_levels": tuple(fields["settings"]["pyramid_levels"])
        }
        fields["settings"] = Experiment(**settings)
    except (KeyError, TypeError) as error:
        raise ExperimentError(f"{path}: not an experiment.json of this version: {error}") from error
    for kind, values in ((StoredTraining, fields), (Experiment, settings)):
        for name, hint in get_type_hints(kind).items():
            if not _fits(values[name], hint):
                raise ExperimentError(f"{path}: {name} cannot be {values[name]!r}")
    return StoredTraining(**fields)


def sample_options(experiment: Experiment, seed: int = 0) -> SampleOptions:
    """Take from an experiment what shapes its samples."""
    return SampleOptions(
        img_size=experiment.img_size,
        source_crop=experiment.source_crop,
        augmentation_level=experiment.augmentation_level,
        box_points=experiment.box_points,
        hflip=experiment.hflip,
        seed=seed,
    )


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type, or what typing makes of it
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(item, int) for item in value)
    return isinstance(value, int | float if hint is float else hint)


def git_commit() -> str | None:
    """Return the commit of the code that runs, "+" behind it where files were changed."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+",
                   "--abbrev=40"]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
