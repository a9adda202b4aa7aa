"""The challenge's score at every combination of settings: a table, and its file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.metric import (
    Boxes,
    FloatArray,
    dataset_scores,
    image_scores,
    precision_steps,
)
from src.prediction.postprocess import gate_scores, shrink_boxes, suppress_at, to_xywh
from src.prediction.predictions import Predictions, common_epochs, load_epoch
from src.prediction.presets import NMS_IOU, Postprocess
from src.system.array_files import read_arrays
from src.system.errors import InputError
from src.system.files import replaced_file

if TYPE_CHECKING:  # `--help` waits for nothing
    import pandas as pd


# What a box's score, times 5, is compared with; the original release's grid.
SCORE_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.28, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
                    2.0, 3.0, 4.0)  # fmt: skip
NMS_GRID = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SHRINK_GRID = (1.0, 0.95, 0.9, 0.875, 0.85)  # of each side of a box; the second place used 0.875
NEAR_BEST = 0.005  # of score: a difference that no one should care about
AXES = ("epoch", "gate", "shrink", "nms", "threshold")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The settings that a sweep combines; by default the original release's.

    Attributes:
        gates: what is compared with the thresholds; see `selection.gate_scores`.
        shrinks: factors on width and height, about the centre.
        nms: a box is dropped when it overlaps a better one by more.
        thresholds: a box counts when its gate is greater.
    """

    gates: tuple[str, ...] = ("score",)
    shrinks: tuple[float, ...] = (1.0,)
    nms: tuple[float, ...] = (NMS_IOU,)
    thresholds: tuple[float, ...] = SCORE_THRESHOLDS


PAPER_GRID = Grid()


class ScoresError(InputError):
    """A scores file, or a folder of predictions, that is missing or wrong."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """The challenge's score at every combination of settings.

    Attributes:
        epochs, gates, shrinks, nms, thresholds: the values along each axis.
        scores: (epochs, gates, shrinks, nms, thresholds) float64; NaN where no image counts.
        header: model, fold and tag of the run.
    """

    epochs: tuple[int, ...]
    gates: tuple[str, ...]
    shrinks: tuple[float, ...]
    nms: tuple[float, ...]
    thresholds: tuple[float, ...]
    scores: FloatArray
    header: dict[str, Any]

    def axes(self) -> list[tuple[Any, ...]]:
        """Return the values along each axis of `scores`, in the order of `AXES`."""
        return [self.epochs, self.gates, self.shrinks, self.nms, self.thresholds]

    def best(self, epoch: int | None = None) -> dict[str, Any]:
        """Return the best combination: a value for each of `AXES`, and `score`.

        Of equal scores the first counts: the earlier epoch, the lower threshold.

        Args:
            epoch: look at this one only.

        Raises:
            ScoresError: the epoch was not scored, or no image counts anywhere.
        """
        if epoch is not None and epoch not in self.epochs:
            raise ScoresError(f"epoch {epoch} was not scored, only {list(self.epochs)}")
        scores = self.scores.copy()
        if epoch is not None:
            scores[[other != epoch for other in self.epochs]] = np.nan
        if np.isnan(scores).all():
            raise ScoresError("no image with true boxes, and nothing predicted: there is no score")
        index = np.unravel_index(int(np.nanargmax(scores)), scores.shape)
        values = (axis[i] for axis, i in zip(self.axes(), index, strict=True))
        return dict(zip(AXES, values, strict=True)) | {"score": float(scores[index])}

    def near_best(self, tolerance: float = NEAR_BEST) -> dict[str, list[Any]]:
        """Return, for each axis, the values that alone cost at most `tolerance` of the best score.

        The other axes stay at the best combination: few values mean a sharp optimum.
        """
        best = self.best()
        index = [axis.index(best[name]) for name, axis in zip(AXES, self.axes(), strict=True)]
        near = {}
        for i, (name, axis) in enumerate(zip(AXES, self.axes(), strict=True)):
            line = np.moveaxis(self.scores, i, -1)[tuple(index[:i] + index[i + 1 :])]
            near[name] = [v for v, score in zip(axis, line, strict=True)
                          if score >= best["score"] - tolerance]  # fmt: skip
        return near

    def table(self) -> pd.DataFrame:
        """Return one row for each combination, tidy."""
        import pandas as pd

        grid = pd.MultiIndex.from_product(self.axes(), names=AXES).to_frame(index=False)
        return grid.assign(score=self.scores.ravel())

    def save(self, path: Path) -> None:
        """Write `path` (.npz) and the same as a table beside it (.csv)."""
        arrays = dict(zip(AXES, map(np.array, self.axes()), strict=True))
        arrays |= {"scores": self.scores, "header": np.array(json.dumps(self.header))}
        with replaced_file(path) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
        with replaced_file(path.with_suffix(".csv")) as temporary:
            self.table().to_csv(temporary, index=False, float_format="%.6g")


def load_sweep(path: Path) -> Sweep:
    """Read what `Sweep.save` wrote.

    Raises:
        ScoresError: missing, or something else.
    """
    if not path.is_file():
        raise ScoresError(f"{path}: no such scores file; --action check_metric makes it")
    arrays = read_arrays(path, (*AXES, "scores", "header"), "scores", ScoresError)
    try:
        axes = [tuple(arrays[name].tolist()) for name in AXES]
        scores, header = arrays["scores"], json.loads(str(arrays["header"]))
        if scores.shape != tuple(map(len, axes)) or scores.dtype != np.float64:
            raise ValueError(f"scores of shape {scores.shape}")
    except (ValueError, TypeError, RecursionError) as error:
        raise ScoresError(f"{path}: not a scores file: {error}") from error
    epochs, gates, shrinks, nms, thresholds = axes
    return Sweep(epochs, gates, shrinks, nms, thresholds, scores, header)


def saved_threshold(path: Path, epoch: int, gate: str) -> float | None:
    """Return an epoch's best threshold by a scores file.

    Returns:
        None where there is no such file, or none of this epoch and gate, or every score is 0.

    Raises:
        ScoresError: the file is something else.
    """
    if not path.exists():
        return None
    sweep = load_sweep(path)
    if epoch not in sweep.epochs:
        return None
    best = sweep.best(epoch)
    return float(best["threshold"]) if best["gate"] == gate and best["score"] > 0 else None


IDENTITY = ("model", "fold", "tag")  # of a run, in the headers of its files


def sweep_epoch(predictions: Predictions, grid: Grid = PAPER_GRID) -> FloatArray:
    """Score one set of predictions, with truth, at every combination.

    Returns:
        (gates, shrinks, nms, thresholds) scores.

    Raises:
        ScoresError: the truth is not known.
    """
    if not predictions.has_truth:
        raise ScoresError("these predictions hold no true boxes: there is nothing to score against")
    true = Boxes(to_xywh(predictions.true_boxes_xyxy), predictions.true_offsets)
    shape = len(grid.gates), len(grid.shrinks), len(grid.nms), len(grid.thresholds)
    result = np.full(shape, np.nan)
    for n, kept in enumerate(suppress_at(predictions, grid.nms)):
        found, rows = _select(predictions, kept)
        for s, shrink in enumerate(grid.shrinks):
            boxes = found._replace(xywh=shrink_boxes(found.xywh, shrink))
            steps = precision_steps(boxes, true)
            for g, gate in enumerate(grid.gates):
                values = gate_scores(predictions, gate)[rows]
                result[g, s, n] = dataset_scores(
                    boxes, steps, true.counts(), values, grid.thresholds
                )
    return result


def sweep_run(run_dir: Path, epochs: Sequence[int] | None = None, grid: Grid = PAPER_GRID) -> Sweep:
    """Score the saved epochs of a run; None takes all of them.

    Raises:
        ScoresError: there are no predictions, or not those of a named epoch.
    """
    return sweep_pooled([run_dir], epochs, grid)


def sweep_pooled(
    run_dirs: Sequence[Path], epochs: Sequence[int] | None = None, grid: Grid = PAPER_GRID
) -> Sweep:
    """Score the images of several runs, such as the four folds of a model, as one data set.

    Args:
        run_dirs: the runs' folders.
        epochs: which; None takes all that every run has.

    Raises:
        ScoresError: a run has no predictions, or not those of a named epoch, or the runs have no
            epoch in common.
        PredictionsError: the runs share images, or differ in the network's input.
    """
    chosen = tuple(common_epochs(run_dirs) if epochs is None else sorted(set(epochs)))
    per_epoch: list[FloatArray] = []
    header: dict[str, Any] = {}
    for epoch in chosen:
        predictions = load_epoch(run_dirs, epoch)
        its = {key: predictions.header.get(key) for key in IDENTITY}
        if per_epoch and its != header:
            raise ScoresError(
                f"{run_dirs[0]}: epoch {epoch} is of another run than epoch {chosen[0]}: {its}"
            )
        header = its
        per_epoch.append(sweep_epoch(predictions, grid))
    scores = np.stack(per_epoch)
    return Sweep(chosen, grid.gates, grid.shrinks, grid.nms, grid.thresholds, scores, header)


def score_images(predictions: Predictions, postprocess: Postprocess) -> FloatArray:
    """Score every image at one setting.

    Returns:
        (I,) mean precision over the IoU thresholds, NaN where the image does not count.
    """
    found, rows = _select(predictions, suppress_at(predictions, [postprocess.nms])[0])
    found = found._replace(xywh=shrink_boxes(found.xywh, postprocess.shrink))
    true = Boxes(to_xywh(predictions.true_boxes_xyxy), predictions.true_offsets)
    steps = precision_steps(found, true)
    values = gate_scores(predictions, postprocess.gate)[rows]
    return image_scores(found, steps, true.counts(), values, postprocess.threshold)


def _select(predictions: Predictions, kept: NDArray[np.bool_]) -> tuple[Boxes, NDArray[np.int64]]:
    """Return the kept candidates as boxes, and their rows."""
    rows = np.flatnonzero(kept)
    offsets = np.concatenate([[0], np.cumsum(kept)])[predictions.offsets]
    return Boxes(to_xywh(predictions.boxes_xyxy[rows]), offsets), rows
