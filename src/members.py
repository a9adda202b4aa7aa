"""The networks that predict, alone or together, and how predictions name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.errors import InputError
from src.models import ModelInfo
from src.runs import Run, ensemble_run

MUST_AGREE = ("img_size", "source_crop", "pyramid_levels")  # what shapes input and anchors


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network, alone or of an ensemble: the weights of an epoch of a run.

    Attributes:
        run: whose checkpoint it is.
        info: the settings of the run's experiment.
        epoch: of the checkpoint.
        weight: in the means of an ensemble, against those of the others.
    """

    run: Run
    info: ModelInfo
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
            ours, its = getattr(first.info, name), getattr(member.info, name)
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


def prediction_header(run: Run, info: ModelInfo, epoch: int) -> dict[str, Any]:
    """Say where predictions come from."""
    return {
        "img_size": info.img_size,
        "source_crop": info.source_crop,
        "frame": "pixels of the network input",
        "model": run.model,
        "fold": run.fold,
        "tag": run.tag,
        "epoch": epoch,
    }
