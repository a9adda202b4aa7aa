"""Which networks predict together, and how files name what made their predictions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from src.experiments.experiment import MUST_AGREE, Experiment
from src.experiments.runs import (
    MAX_EPOCH,
    Fold,
    ModelName,
    Run,
    Tag,
    ensemble_run,
    require_weights,
)
from src.prediction.fusion_settings import Fusion
from src.prediction.presets import Postprocess
from src.retinanet.settings import WeakLimits
from src.structures import Fit, ShownArea
from src.system.errors import InputError
from src.system.records import fits, show_value

MAX_SIDE = 2**16  # pixels, of a network input or of what it shows
WEIGHT_DIGITS = 9  # that count of a weight


@dataclass(frozen=True, kw_only=True)
class RunId:
    """Names a run, or an ensemble of runs, in files.

    Attributes:
        model: the experiment; of an ensemble all of them with + between.
        tag: of the run.
        fold: that was left out of the training; None where the networks differ in it.

    Raises:
        ValueError: no run is called so; the message names the field.
    """

    model: str | None = None
    tag: str | None = None
    fold: int | None = None

    def __post_init__(self) -> None:
        _require(self, "model", lambda name: fits(name, ModelName))
        _require(self, "tag", lambda tag: fits(tag, Tag))
        _require(self, "fold", lambda fold: fits(fold, Fold))


@dataclass(frozen=True, kw_only=True)
class NetworkId(RunId):
    """Names a network in files.

    Attributes:
        epoch: of its checkpoint.
        weight: in the means of an ensemble, whose weights sum to 1.
    """

    epoch: int | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self, "epoch", lambda epoch: 0 <= epoch < MAX_EPOCH)
        _require(self, "weight", lambda weight: 0 <= weight <= 1 + 10**-WEIGHT_DIGITS)


@dataclass(frozen=True, kw_only=True)
class Combination:
    """How the outputs of several networks, or the views of one, were combined.

    Attributes:
        members: the networks, at least one.
        hflip: whether each saw the mirrored images as well.
        size_rule, k: how the sizes of boxes were combined; see `retinanet.ensemble.Ensemble`.

    Raises:
        ValueError: nothing was ever combined so; the message names the field.
    """

    members: tuple[NetworkId, ...]
    hflip: bool
    size_rule: Literal["percentile", "mean"] = "mean"
    k: float | None = None

    def __post_init__(self) -> None:
        _require(self, "members", bool)
        _require(self, "k", lambda k: abs(k) <= sys.float_info.max)

    def without_folds(self) -> Combination:
        """Return the same without the members' folds: what the ensembles of a pool share."""
        return replace(self, members=tuple(replace(one, fold=None) for one in self.members))

    def rounded(self) -> Combination:
        """Return the same with weights that can be compared: computing them rounds."""
        members = (replace(one, weight=round(one.weight, WEIGHT_DIGITS)) for one in self.members)
        return replace(self, members=tuple(members))


@dataclass(frozen=True, kw_only=True)
class FusedFile(NetworkId):
    """A file whose boxes were fused, by the network that it names; None for a submission.

    Attributes:
        file: its path when it was read.
        sha256: of its bytes, hexadecimal.
    """

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FusedFiles:
    """Which files were fused to predictions, and how.

    Attributes:
        inputs: the files, with weights that sum to 1.
        fusion: the method and its settings.
        nms, shrink: how boxes of predictions were suppressed and scaled before.

    Raises:
        ValueError: nothing was ever fused so.
    """

    inputs: tuple[FusedFile, ...]
    fusion: Fusion
    nms: float
    shrink: float

    def __post_init__(self) -> None:
        _require(self, "inputs", bool)


@dataclass(frozen=True, kw_only=True)
class Provenance(RunId):
    """What made some predictions, and of which images; `model` and `tag` are of the run that they
    belong to.

    Attributes:
        img_size: side of the network input, pixels.
        source_crop, fit: see `ShownArea`.
        epoch: of the network; of several the last.
        ensemble: how several were combined; None for one network alone.
        named_by: what the ids of the images are: patientIds, or paths of files below the folder
            that was predicted.
        images: fingerprint of the images, and of their labels where they have any; None where it is
            not known.
        image_scores: file of another classifier's probabilities that stand in for those of the
            global head; None where they are its own.
        weak: which boxes beside the candidates were saved; None where none were.
        fusion: which files the boxes were fused of; None where networks found them.

    Raises:
        ValueError: no predictions were made so; the message names the field.
    """

    img_size: int
    source_crop: int | None = None
    fit: Fit = "squeeze"
    epoch: int | None = None
    ensemble: Combination | None = None
    named_by: Literal["patient", "file"] = "patient"
    images: str | None = None
    image_scores: str | None = None
    weak: WeakLimits | None = None
    fusion: FusedFiles | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("img_size", "source_crop"):
            side = getattr(self, name)
            if side is not None and not 0 < side <= MAX_SIDE:
                raise ValueError(f"{name} {show_value(side)} is not from 1 to {MAX_SIDE} pixels")
        _require(self, "epoch", lambda epoch: 0 <= epoch < MAX_EPOCH)

    @property
    def shown(self) -> ShownArea:
        """Return what the network input shows of an image."""
        return ShownArea(source_crop=self.source_crop, fit=self.fit)

    @property
    def networks(self) -> tuple[NetworkId, ...]:
        """Return the networks, one or several; of a fusion the files."""
        if self.fusion is not None:
            return self.fusion.inputs
        if self.ensemble is not None:
            return self.ensemble.members
        alone = NetworkId(model=self.model, tag=self.tag, fold=self.fold, epoch=self.epoch)
        return (alone,)

    @property
    def hflip(self) -> bool:
        """Say whether the networks saw the mirrored images as well."""
        return self.ensemble is not None and self.ensemble.hflip

    def is_same(self, other: Provenance) -> bool:
        """Say whether other predictions are of the same networks, combined in the same way."""
        ours, theirs = (
            replace(
                each,
                named_by="patient",
                images=None,
                weak=None,
                ensemble=each.ensemble and each.ensemble.rounded(),
            )
            for each in (self, other)
        )
        return ours == theirs


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network, alone or of an ensemble: the weights of an epoch of a run.

    Attributes:
        run: whose network it is.
        experiment: that it was trained with.
        epoch: of its training.
        path: of its checkpoint, which need not be there while nothing is predicted.
        weight: in the means of an ensemble, against those of the others.
    """

    run: Run
    experiment: Experiment
    epoch: int
    path: Path
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class NetworkSet:
    """Networks that predict together: all different, with the same input and anchors.

    Attributes:
        members: at least one.
        hflip: whether each sees the mirrored images as well, which makes an ensemble of one.

    Raises:
        InputError: they cannot be combined; the message names two of them and why.
    """

    members: tuple[Member, ...]
    hflip: bool = False

    def __post_init__(self) -> None:
        first, seen = self.members[0], set()
        for member in self.members:
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

    @property
    def combines(self) -> bool:
        """Say whether outputs are combined, of several networks or of the views of one."""
        return len(self.members) > 1 or self.hflip

    @property
    def run(self) -> Run:
        """Return the run that the predictions belong to: the network's, or the ensemble's."""
        if self.combines:
            return ensemble_run([member.run for member in self.members])
        return self.members[0].run

    @property
    def fold(self) -> int | None:
        """Return the fold that all have left out of their training, None where they differ."""
        folds = {member.run.fold for member in self.members}
        return folds.pop() if len(folds) == 1 else None

    @property
    def last_epoch(self) -> int:
        """Return the last epoch, by which the predictions are named."""
        return max(member.epoch for member in self.members)

    @property
    def experiment(self) -> Experiment:
        """Return the first network's experiment: all agree on what shapes their input."""
        return self.members[0].experiment

    def require_weights(self) -> None:
        """Make sure that the checkpoints are there, before the first is loaded or an image is read.

        Raises:
            InputError: one is missing.
        """
        for member in self.members:
            require_weights(member.path)

    def provenance(self, postprocess: Postprocess) -> Provenance:
        """Say what will have made the predictions.

        Args:
            postprocess: how several combine the sizes of their boxes.
        """
        ensemble = None
        if self.combines:
            total = sum(member.weight for member in self.members)
            ensemble = Combination(
                members=tuple(
                    NetworkId(
                        model=member.run.model,
                        tag=member.run.tag,
                        fold=member.run.fold,
                        epoch=member.epoch,
                        weight=member.weight / total,
                    )
                    for member in self.members
                ),
                hflip=self.hflip,
                size_rule=postprocess.size_rule,
                k=postprocess.k,
            )
        return Provenance(
            img_size=self.experiment.img_size,
            source_crop=self.experiment.source_crop,
            fit=self.experiment.fit,
            model=self.run.model,
            fold=self.fold,
            tag=self.run.tag,
            epoch=self.last_epoch,
            ensemble=ensemble,
        )


def trained_provenance(
    run: Run, experiment: Experiment, epoch: int, *, images: str | None = None
) -> Provenance:
    """Say what made the predictions that a training saves after an epoch.

    Args:
        images: fingerprint of the validation images and their labels.
    """
    member = Member(run=run, experiment=experiment, epoch=epoch, path=run.checkpoint_path(epoch))
    return replace(NetworkSet(members=(member,)).provenance(Postprocess()), images=images)


def _require(record: object, name: str, holds: Callable[[Any], object]) -> None:
    """Raise ValueError where a field of a record is set to what it cannot be."""
    value = getattr(record, name)
    if value is not None and not holds(value):
        raise ValueError(f"{name} cannot be {show_value(value)}")
