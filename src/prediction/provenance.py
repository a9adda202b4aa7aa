"""Which networks predicted, alone or together, and how that is written beside what they found.

Predictions are kept and used again with other settings: their own header does not tell what a CSV
was made with, so a JSON file beside every CSV does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.experiments.experiment import MUST_AGREE, Experiment
from src.experiments.runs import Run, ensemble_run
from src.prediction.predictions import Predictions
from src.prediction.presets import Postprocess
from src.system.errors import InputError
from src.system.files import write_json


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network, alone or of an ensemble: the weights of an epoch of a run.

    Attributes:
        run: whose checkpoint it is.
        experiment: the settings of the run's experiment.
        epoch: of the checkpoint.
        weight: in the means of an ensemble, against those of the others.
    """

    run: Run
    experiment: Experiment
    epoch: int
    weight: float = 1.0


def check_members(members: Sequence[Member]) -> None:
    """Make sure that networks can be combined: all different, with the same input and anchors.

    Raises:
        InputError: they cannot; the message names two of them and why.
    """
    first, seen = members[0], set()
    for member in members:
        place = (member.run.name, member.epoch)
        if place in seen:
            raise InputError(f"{place[0]} epoch {place[1]} is in the ensemble twice")
        seen.add(place)
        for name in MUST_AGREE:
            ours, its = getattr(first.experiment, name), getattr(member.experiment, name)
            if ours != its:
                raise InputError(
                    f"{first.run.model} and {member.run.model} cannot be combined: "
                    f"{name} is {ours} and {its}"
                )


def run_of(members: Sequence[Member], *, hflip: bool) -> Run:
    """Return whose predictions are theirs: the run of one network, or one for the ensemble.

    Args:
        hflip: whether networks see the mirrored images as well, which makes an ensemble of one.
    """
    runs = [member.run for member in members]
    return runs[0] if len(runs) == 1 and not hflip else ensemble_run(runs)


def common_fold(members: Sequence[Member]) -> int | None:
    """Return the fold that all members have left out of their training, None where they differ."""
    folds = {member.run.fold for member in members}
    return folds.pop() if len(folds) == 1 else None


def last_epoch(members: Sequence[Member]) -> int:
    """Return the last of the members' epochs, by which an ensemble's predictions are named."""
    return max(member.epoch for member in members)


def prediction_header(run: Run, experiment: Experiment, epoch: int) -> dict[str, Any]:
    """Say where predictions come from."""
    return {
        "img_size": experiment.img_size,
        "source_crop": experiment.source_crop,
        "frame": "pixels of the network input",
        "model": run.model,
        "fold": run.fold,
        "tag": run.tag,
        "epoch": epoch,
    }


IDENTITY = ("model", "tag", "fold", "epoch")  # of a network, in headers


def write_provenance(
    csv_path: Path, predictions: Predictions, predictions_path: Path, postprocess: Postprocess
) -> None:
    """Write `<csv stem>.json`: predictions file, networks with their weights, postprocess.

    Args:
        predictions_path: their file; it is named relative to the CSV file's folder.
        postprocess: with which the boxes were chosen.
    """
    content = {
        "predictions": Path(os.path.relpath(predictions_path, csv_path.parent)).as_posix(),
        **describe_networks(predictions.header),
        "postprocess": asdict(postprocess),
    }
    write_json(csv_path.with_suffix(".json"), content)


def describe_networks(header: dict[str, Any]) -> dict[str, Any]:
    """Return what made some predictions, by their header.

    Returns:
        members: model, tag, fold, epoch and weight of each network; the weights sum to 1.
        hflip: whether each saw the mirrored images as well.
    """
    ensemble = header.get("ensemble")
    if isinstance(ensemble, dict):
        return {name: ensemble.get(name) for name in ("members", "hflip")}
    alone = {name: header.get(name) for name in IDENTITY} | {"weight": 1.0}
    return {"members": [alone], "hflip": False}


def stored_sizes(header: dict[str, Any]) -> dict[str, Any]:
    """Return size_rule and k by which the sizes of some predictions were combined."""
    ensemble = header.get("ensemble")
    if isinstance(ensemble, dict) and ensemble.get("size_rule") == "percentile":
        k = ensemble.get("k")
        return {"size_rule": "percentile", "k": float(k) if isinstance(k, (int, float)) else None}
    return {"size_rule": "mean"}


def describe_members(
    members: Sequence[Member], postprocess: Postprocess, *, hflip: bool
) -> dict[str, Any]:
    """Say where predictions come from; of one network alone the same as after its training."""
    first, run = members[0], run_of(members, hflip=hflip)
    header = prediction_header(run, first.experiment, last_epoch(members))
    if run == first.run:
        return header
    total = sum(member.weight for member in members)
    described = [
        {
            "model": member.run.model,
            "tag": member.run.tag,
            "fold": member.run.fold,
            "epoch": member.epoch,
            "weight": member.weight / total,
        }
        for member in members
    ]
    ensemble = {"members": described, "hflip": hflip}
    ensemble |= {"size_rule": postprocess.size_rule, "k": postprocess.k}
    return header | {"fold": common_fold(members), "ensemble": ensemble}
