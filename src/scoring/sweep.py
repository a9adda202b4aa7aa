"""The challenge's score at every combination of settings: a table, its file, and the best of it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from src.experiments.runs import MAX_EPOCH
from src.metric import FloatArray
from src.prediction.presets import GATES, Postprocess
from src.prediction.provenance import Combination, Provenance, RunId
from src.system.array_files import ArraySchema, check_arrays, read_arrays
from src.system.errors import InputError
from src.system.files import replaced_file
from src.system.records import MAX_CAUSE, Rule, build_record, cut_text, show_value, within

SCORES_ALL = "--action check_metric scores all that are saved"
NEAR_BEST = 0.005  # of score: a difference that no one should care about
AXES = {
    "epoch": ArraySchema(dtype="int64", shape=("epochs",), low=0, high=MAX_EPOCH, is_unique=True),
    "gate": ArraySchema(dtype="str", shape=("gates",), choices=GATES, is_unique=True),
    "shrink": ArraySchema(dtype="float64", shape=("shrinks",), low=0, high=1, is_unique=True),
    "nms": ArraySchema(dtype="float64", shape=("nms",), low=0, high=1, is_unique=True),
    "threshold": ArraySchema(dtype="float64", shape=("thresholds",), is_unique=True),
}
ARRAYS = AXES | {
    "scores": ArraySchema(
        dtype="float64",
        shape=("epochs", "gates", "shrinks", "nms", "thresholds"),
        low=0,
        high=1 + 1e-9,  # a mean, which rounds
        may_be_nan=True,
    ),
    "header": ArraySchema(dtype="str", shape=()),  # JSON
}  # fmt: skip


class ScoresError(InputError):
    """A scores file, or a folder of predictions, that is missing or wrong."""


class NothingToScoreError(ScoresError):
    """Predictions of images whose true boxes are not known."""


@dataclass(frozen=True, kw_only=True)
class ScoredRun(RunId):
    """Whose predictions were scored; None where several runs differ.

    Attributes:
        ensemble: the networks and how they were combined; None for those of one network alone.
    """

    ensemble: Combination | None = None

    @classmethod
    def of(cls, provenance: Provenance) -> ScoredRun:
        """Take from what made predictions what its epochs have in common."""
        ensemble = provenance.ensemble
        return cls(
            model=provenance.model,
            tag=provenance.tag,
            fold=provenance.fold,
            ensemble=ensemble and ensemble.rounded(),
        )


@dataclass(frozen=True, kw_only=True)
class BestSetting:
    """The combination of settings with the highest score, and that score, which is above 0."""

    epoch: int
    gate: str
    shrink: Annotated[float, within(0, 1)]
    nms: Annotated[float, within(0, 1)]
    threshold: Annotated[float, Rule(math.isfinite, "a finite number")]
    score: float

    @property
    def postprocess(self) -> Postprocess:
        """Return how its boxes are chosen."""
        return Postprocess(
            gate=self.gate,
            threshold=self.threshold,
            threshold_from=_from_check_metric(self.epoch),
            nms=self.nms,
            shrink=self.shrink,
        )

    def is_for(self, postprocess: Postprocess) -> bool:
        """Say whether boxes are chosen as here, but for the threshold."""
        ours = self.postprocess
        return all(
            getattr(ours, name) == getattr(postprocess, name) for name in ("gate", "nms", "shrink")
        )


def read_best(values: object, path: Path) -> BestSetting | None:
    """Read the best setting that a file of weights holds; None where it holds none.

    Args:
        values: of the fields.
        path: of the file, for the message.

    Raises:
        ScoresError: it is something else.
    """
    if values is None:
        return None
    try:
        best = build_record(BestSetting, values)
        Postprocess(gate=best.gate)
    except ValueError as error:
        raise ScoresError(f"{path}: its best setting cannot be used: {error}") from error
    return best


class Choice(NamedTuple):
    """An epoch, and the best setting that is known of it; None where none is."""

    epoch: int
    best: BestSetting | None

    @property
    def postprocess(self) -> Postprocess:
        """Return how boxes are chosen at the best setting; by default where none is known."""
        return Postprocess() if self.best is None else self.best.postprocess

    def fill(self, postprocess: Postprocess) -> Postprocess:
        """Put the best threshold where neither a flag nor a preset has set one."""
        threshold = self.threshold_for(postprocess) if postprocess.threshold_is_open else None
        if threshold is None:
            return postprocess
        source = _from_check_metric(self.epoch)
        return replace(postprocess, threshold=threshold, threshold_from=source)

    def threshold_for(self, postprocess: Postprocess) -> float | None:
        """Return the best threshold, None where it is unknown or belongs to another gate.

        Where it was found for boxes that are chosen in another way, a warning says so.
        """
        best = self.best
        if best is None:
            return None
        is_taken = best.gate == postprocess.gate
        if not best.is_for(postprocess):
            effect = "may not fit" if is_taken else "is not taken"
            warnings.warn(
                f"check_metric found the threshold of epoch {self.epoch} with --gate {best.gate} "
                f"--nms {best.nms:g} --shrink {best.shrink:g}; boxes are chosen otherwise "
                f"here, so that it {effect}; --threshold sets one",
                stacklevel=2,
            )
        return best.threshold if is_taken else None


@dataclass(frozen=True, eq=False)
class Sweep:
    """The challenge's score at every combination of settings.

    Attributes:
        epochs, gates, shrinks, nms, thresholds: the values along each axis.
        scores: (epochs, gates, shrinks, nms, thresholds) float64; NaN where no image counts.
        run: whose predictions they are.
    """

    epochs: tuple[int, ...]
    gates: tuple[str, ...]
    shrinks: tuple[float, ...]
    nms: tuple[float, ...]
    thresholds: tuple[float, ...]
    scores: FloatArray
    run: ScoredRun

    def axes(self) -> list[tuple[Any, ...]]:
        """Return the values along each axis of `scores`, in the order of `AXES`."""
        return [self.epochs, self.gates, self.shrinks, self.nms, self.thresholds]

    def best(self, epoch: int | None = None) -> BestSetting | None:
        """Return the best combination, None where no score is above 0 or none exists.

        Of equal scores the first counts: the earlier epoch, the lower threshold.

        Args:
            epoch: look at this one only.

        Raises:
            ScoresError: the epoch was not scored.
        """
        if epoch is not None and epoch not in self.epochs:
            raise ScoresError(f"epoch {epoch} was not scored, only {show_value(list(self.epochs))}")
        scores = np.nan_to_num(self.scores, nan=0.0)
        if epoch is not None:
            scores[[other != epoch for other in self.epochs]] = 0.0
        index = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[index] <= 0:
            return None
        values = (axis[i] for axis, i in zip(self.axes(), index, strict=True))
        return BestSetting(**dict(zip(AXES, values, strict=True)), score=float(scores[index]))

    def lack(self, saved: Sequence[int]) -> str:
        """Say which of the saved epochs have no scores; "" where all have."""
        unscored = [str(epoch) for epoch in saved if epoch not in self.epochs]
        return f"has nothing of epoch {', '.join(unscored)}" if unscored else ""

    @property
    def has_true_boxes(self) -> bool:
        """Say whether there is something to hit; a single true box makes every score a number."""
        return not np.isnan(self.scores).any()

    def why_no_best(self, what: str = "setting") -> str:
        """Say why `best` finds none.

        Args:
            what: was looked at.
        """
        if self.has_true_boxes:
            return f"no {what} scores above 0: no box hits a true one; a longer training might help"
        return "no image has true boxes, so there is nothing to score"

    def choose(self, saved: Sequence[int], epoch: int | None = None) -> Choice:
        """Choose an epoch: the one that is named, else the best, else the last one saved.

        This is the one rule by which everything that looks at a single epoch of a run finds it.

        Args:
            saved: epochs that can be looked at, ascending, at least one.
            epoch: the one that was asked for.
        """
        if epoch is None:
            best = self.best()
            return Choice(saved[-1] if best is None else best.epoch, best)
        return Choice(epoch, self.best(epoch) if epoch in self.epochs else None)

    def place_of(self, best: BestSetting | None) -> dict[str, int]:
        """Return where a setting stands along each axis.

        Without one it is the last epoch, and the first value of every other axis.
        """
        if best is None:
            return dict.fromkeys(AXES, 0) | {"epoch": len(self.epochs) - 1}
        return {n: axis.index(getattr(best, n)) for n, axis in zip(AXES, self.axes(), strict=True)}

    def near_best(self, best: BestSetting, tolerance: float = NEAR_BEST) -> dict[str, list[Any]]:
        """Return, for each axis, the values that alone cost at most `tolerance` of the best score.

        The other axes stay at the best combination: few values mean a sharp optimum.
        """
        index = list(self.place_of(best).values())
        near = {}
        for i, (name, axis) in enumerate(zip(AXES, self.axes(), strict=True)):
            line = np.moveaxis(self.scores, i, -1)[tuple(index[:i] + index[i + 1 :])]
            near[name] = [v for v, score in zip(axis, line, strict=True)
                          if score >= best.score - tolerance]  # fmt: skip
        return near

    def table(self) -> pd.DataFrame:
        """Return one row for each combination, tidy."""
        grid = pd.MultiIndex.from_product(self.axes(), names=list(AXES)).to_frame(index=False)
        return grid.assign(score=self.scores.ravel())

    def save(self, path: Path) -> None:
        """Write `path` (.npz) and the same as a table beside it (.csv)."""
        arrays = {
            name: np.array(axis, dtype=schema.dtype)
            for axis, (name, schema) in zip(self.axes(), AXES.items(), strict=True)
        }
        run = {name: value for name, value in asdict(self.run).items()
               if name != "ensemble" or value is not None}  # fmt: skip
        arrays |= {"scores": self.scores, "header": np.array(json.dumps(run))}
        with replaced_file(path) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
        with replaced_file(path.with_suffix(".csv")) as temporary:
            self.table().to_csv(temporary, index=False, float_format="%.6g")


def load_sweep(path: Path) -> Sweep:
    """Read what `Sweep.save` wrote.

    Raises:
        ScoresError: missing, or something else.
    """
    if not path.exists():
        raise ScoresError(f"{path}: no such scores file; --action check_metric makes it")
    arrays = read_arrays(path, ARRAYS, "scores", ScoresError)
    try:
        check_arrays(arrays, ARRAYS)
        if arrays["scores"].size == 0:
            raise ValueError("holds no scores")
        run = build_record(ScoredRun, json.loads(str(arrays["header"])))
    except (ValueError, TypeError, RecursionError) as error:
        cause = cut_text(" ".join(str(error).split()), MAX_CAUSE)
        raise ScoresError(f"{path}: not a scores file: {cause}") from error
    epochs, gates, shrinks, nms, thresholds = (tuple(arrays[name].tolist()) for name in AXES)
    return Sweep(epochs, gates, shrinks, nms, thresholds, arrays["scores"], run)


def choose_epoch(scores_path: Path, saved: Sequence[int], epoch: int | None = None) -> Choice:
    """Choose an epoch as `Sweep.choose` does, by a scores file that need not be there.

    A warning says which of the epochs that it chooses among have no scores.

    Raises:
        ScoresError: the file is something else.
    """
    if scores_path.exists():
        sweep = load_sweep(scores_path)
        if epoch is None and sweep.lack(saved):
            warnings.warn(f"{scores_path}: {sweep.lack(saved)}; {SCORES_ALL}", stacklevel=2)
        return sweep.choose(saved, epoch)
    return Choice(saved[-1] if epoch is None else epoch, None)


def _from_check_metric(epoch: int) -> str:
    return f"check_metric, epoch {epoch}"
