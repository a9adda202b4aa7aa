"""Saved predictions at every combination of epoch, gate, box size, NMS and score threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.metric import FloatArray, mean_of_counted, precision_steps, score_sums
from src.prediction.postprocess import gate_scores, shrink_boxes, suppress_at
from src.prediction.predictions import Predictions
from src.prediction.presets import NMS_IOU
from src.prediction.saved_epochs import LoadEpoch, common_epochs, load_epoch
from src.scoring.sweep import NothingToScoreError, ScoredRun, ScoresError, Sweep

# What a box's score, times 5, is compared with; the original release's grid.
SCORE_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.28, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
                    2.0, 3.0, 4.0)  # fmt: skip
NMS_GRID = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SHRINK_GRID = (1.0, 0.95, 0.9, 0.875, 0.85)  # of each side of a box; the second place used 0.875
NO_TRUTH = "the predictions hold no true boxes: there is nothing to score against"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The settings that a sweep combines; by default the original release's.

    Attributes:
        gates: what is compared with the thresholds, keys of `presets.GATES`.
        shrinks: factors on width and height, about the centre.
        nms: a box is dropped when it overlaps a better one by more.
        thresholds: a box counts when its gate is greater.
    """

    gates: tuple[str, ...] = ("score",)
    shrinks: tuple[float, ...] = (1.0,)
    nms: tuple[float, ...] = (NMS_IOU,)
    thresholds: tuple[float, ...] = SCORE_THRESHOLDS


PAPER_GRID = Grid()


def sweep_epoch(predictions: Predictions, grid: Grid = PAPER_GRID) -> FloatArray:
    """Score one set of predictions, with truth, at every combination.

    Returns:
        (gates, shrinks, nms, thresholds) scores.

    Raises:
        NothingToScoreError: the truth is not known.
    """
    return mean_of_counted(*sweep_sums(predictions, grid))


def sweep_sums(predictions: Predictions, grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Sum up what `sweep_epoch` averages.

    Returns:
        (gates, shrinks, nms, thresholds) the sum of the images' scores, and the images that count.

    Raises:
        NothingToScoreError: the truth is not known.
    """
    if not predictions.has_truth:
        raise NothingToScoreError(NO_TRUTH)
    true, candidates = predictions.truth(), predictions.candidates()
    gates = {gate: gate_scores(predictions, gate) for gate in grid.gates}
    shape = len(grid.gates), len(grid.shrinks), len(grid.nms), len(grid.thresholds)
    totals, n_counted = np.zeros(shape), np.zeros(shape)
    for n, kept in enumerate(suppress_at(candidates, grid.nms)):
        found = candidates.kept(kept)
        for s, shrink in enumerate(grid.shrinks):
            boxes = found._replace(xywh=shrink_boxes(found.xywh, shrink))
            steps = precision_steps(boxes, true)
            for g, values in enumerate(gates.values()):
                totals[g, s, n], n_counted[g, s, n] = score_sums(
                    boxes, steps, true.counts(), values[kept], grid.thresholds
                )
    return totals, n_counted


def sweep_run(
    run_dir: Path,
    epochs: Sequence[int] | None = None,
    grid: Grid = PAPER_GRID,
    *,
    load: LoadEpoch = load_epoch,
) -> Sweep:
    """Score the saved epochs of a run; None takes all of them.

    Raises:
        ScoresError: there are no predictions, or not those of a named epoch.
    """
    return sweep_pooled([run_dir], epochs, grid, load=load)


def sweep_pooled(
    run_dirs: Sequence[Path],
    epochs: Sequence[int] | None = None,
    grid: Grid = PAPER_GRID,
    *,
    load: LoadEpoch = load_epoch,
) -> Sweep:
    """Score the images of several runs, such as the four folds of a model, as one data set.

    Args:
        run_dirs: the runs' folders.
        epochs: which; None takes all that every run has.
        load: gives the predictions of an epoch.

    Raises:
        ScoresError: a run has no predictions, or not those of a named epoch, or the runs have no
            epoch in common, or epochs of several ensembles.
        PredictionsError: the runs share images, or differ in the network's input.
    """
    chosen = tuple(common_epochs(run_dirs) if epochs is None else sorted(set(epochs)))
    per_epoch: list[FloatArray] = []
    run = ScoredRun()
    for epoch in chosen:
        predictions = load(run_dirs, epoch)
        if not predictions.has_truth:
            raise NothingToScoreError(f"{run_dirs[0]}: {NO_TRUTH}")
        its = ScoredRun.of(predictions.provenance)
        if per_epoch and its != run:
            what = "run" if its.ensemble is run.ensemble is None else "ensemble"
            raise ScoresError(
                f"{run_dirs[0]}: epoch {epoch} is of another {what} than epoch {chosen[0]}; "
                f"score them one by one, by --epochs"
            )
        run = its
        per_epoch.append(sweep_epoch(predictions, grid))
    scores = np.stack(per_epoch)
    return Sweep(chosen, grid.gates, grid.shrinks, grid.nms, grid.thresholds, scores, run)
