"""A run whose predictions were fused of several detectors': its name, and its folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from src.experiments.experiment_file import write_description
from src.experiments.runs import ModelName, Run, read_description
from src.experiments.table import EXPERIMENTS
from src.prediction.fused_predictions import FUSED_EPOCH
from src.prediction.fusion_inputs import Detections
from src.prediction.outputs import describe_networks
from src.prediction.predictions import Predictions
from src.prediction.saved_epochs import predictions_path
from src.structures import MAX_FOLDS
from src.system.errors import InputError
from src.system.files import check_place, new_folder
from src.system.records import fits

RUN_FOLDER = re.compile(r"(.+)_fold_(0|[1-9][0-9]*)", re.ASCII)


def name_fused_run(folder: Path) -> Run | None:
    """Name the run that a folder called `<name>_fold_<k>` will hold; None for another name.

    Raises:
        InputError: no run can be called so, or something is there already.
    """
    match = RUN_FOLDER.fullmatch(folder.name)
    if match is None:
        return None
    run = Run(match[1], int(match[2]), "", folder.parent)
    if run.fold >= MAX_FOLDS:
        raise InputError(f"{folder}: fold {match[2][:9]} is not from 0 to {MAX_FOLDS - 1}")
    if not fits(run.model, ModelName):
        raise InputError(f"{folder}: a run is named by letters, digits and . + - _ alone")
    if run.model in EXPERIMENTS:
        raise InputError(f"{folder}: is the folder of --model {run.model}; take another name")
    check_place(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is there already; take another name, or remove it")
    return run


def write_fused_run(run: Run, predictions: Predictions, inputs: Sequence[Detections]) -> None:
    """Make the folder of a run that holds fused predictions, whole or not at all."""
    content = {
        "model": run.model,
        "tag": run.tag,
        "fold": run.fold,
        **describe_networks(predictions.provenance),
    }
    images = next(filter(None, map(_images_dir, inputs)), None)
    with new_folder(run.dir) as folder:
        predictions.save(predictions_path(folder, FUSED_EPOCH))
        write_description(
            folder / "experiment.json", content if images is None else content | {"images": images}
        )


def _images_dir(own: Detections) -> str | None:
    """Return where the images of an input lie, if the run that holds its file says so."""
    images = read_description(own.path.parent.parent / "experiment.json").get("images")
    return str(images) if images else None
