"""Sweep score and NMS thresholds over saved predictions; no model is needed.

As a command: `python src/scores.py output/demo_fold_0 ...` scores every saved epoch of the runs at
every combination of settings, and writes sweep.csv and sweep.npz into each run's folder;
`python src/scores.py submission.csv --truth labels.csv` is the challenge's leaderboard offline.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.array_files import read_arrays
from src.errors import CommandParser, InputError, report_errors
from src.files import replaced_file
from src.metric import (
    Boxes,
    FloatArray,
    bootstrap_interval,
    dataset_scores,
    image_scores,
    precision_steps,
)
from src.predictions import Predictions, join_predictions, load_predictions
from src.runs import N_FOLDS, Run, numbered_files
from src.selection import GATES, gate_scores, shrink_boxes, suppress_at, to_xywh

# What a box's score, times 5, is compared with; the original release's grid.
SCORE_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.28, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
                    2.0, 3.0, 4.0)  # fmt: skip
NMS_THRESHOLDS = (0.05,)  # the original release
NMS_GRID = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SHRINKS = (1.0,)  # of each side of a box; the second place used 0.875
SHRINK_GRID = (1.0, 0.95, 0.9, 0.875, 0.85)
NEAR_BEST = 0.005  # of score: a difference that no one should care about
IDENTITY = ("model", "fold", "tag")  # of a run, in the headers of its files
AXES = ("epoch", "gate", "shrink", "nms", "threshold")


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


def sweep_epoch(
    predictions: Predictions,
    *,
    thresholds: Sequence[float] = SCORE_THRESHOLDS,
    nms: Sequence[float] = NMS_THRESHOLDS,
    shrinks: Sequence[float] = SHRINKS,
    gates: Sequence[str] = ("score",),
) -> FloatArray:
    """Score one set of predictions at every combination.

    Args:
        predictions: with truth.
        thresholds: a box counts when its gate is greater.
        nms: a box is dropped when it overlaps a better one by more.
        shrinks: factors on width and height, about the centre.
        gates: what is compared with the thresholds; see `gate_scores`.

    Returns:
        (gates, shrinks, nms, thresholds) scores.
    """
    if not predictions.has_truth:
        raise ScoresError("these predictions hold no true boxes: there is nothing to score against")
    true = Boxes(to_xywh(predictions.true_boxes_xyxy), predictions.true_offsets)
    result = np.full((len(gates), len(shrinks), len(nms), len(thresholds)), np.nan)
    for n, kept in enumerate(suppress_at(predictions, nms)):
        found, rows = _select(predictions, kept)
        for s, shrink in enumerate(shrinks):
            boxes = found._replace(xywh=shrink_boxes(found.xywh, shrink))
            steps = precision_steps(boxes, true)
            for g, gate in enumerate(gates):
                values = gate_scores(predictions, gate)[rows]
                result[g, s, n] = dataset_scores(boxes, steps, true.counts(), values, thresholds)
    return result


def sweep_run(
    run_dir: Path,
    epochs: Sequence[int] | None = None,
    *,
    thresholds: Sequence[float] = SCORE_THRESHOLDS,
    nms: Sequence[float] = NMS_THRESHOLDS,
    shrinks: Sequence[float] = SHRINKS,
    gates: Sequence[str] = ("score",),
) -> Sweep:
    """Score the saved epochs of a run.

    Args:
        run_dir: the run's folder.
        epochs: which; None takes all that are saved.

    Raises:
        ScoresError: there are no predictions, or not those of a named epoch.
    """
    return sweep_pooled(
        [run_dir], epochs, thresholds=thresholds, nms=nms, shrinks=shrinks, gates=gates
    )


def sweep_pooled(
    run_dirs: Sequence[Path],
    epochs: Sequence[int] | None = None,
    *,
    thresholds: Sequence[float] = SCORE_THRESHOLDS,
    nms: Sequence[float] = NMS_THRESHOLDS,
    shrinks: Sequence[float] = SHRINKS,
    gates: Sequence[str] = ("score",),
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
    chosen = tuple(_common_epochs(run_dirs) if epochs is None else epochs)
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
        per_epoch.append(
            sweep_epoch(predictions, thresholds=thresholds, nms=nms, shrinks=shrinks, gates=gates)
        )
    scores = np.stack(per_epoch)
    return Sweep(
        chosen, tuple(gates), tuple(shrinks), tuple(nms), tuple(thresholds), scores, header
    )


def load_epoch(run_dirs: Sequence[Path], epoch: int) -> Predictions:
    """Load the validation predictions of one epoch of one or several runs, as one.

    Raises:
        ScoresError: a run does not have the epoch.
        PredictionsError: a file is broken, or of another run, or the runs cannot be pooled.
    """
    parts = []
    for run_dir in run_dirs:
        saved = saved_epochs(run_dir)
        if epoch not in saved:
            raise ScoresError(f"{run_dir}: holds no predictions of epoch {epoch}; it has {saved}")
        path = run_dir / "predictions" / f"{epoch:03}.npz"
        predictions = load_predictions(path)
        if predictions.header.get("epoch", epoch) != epoch:
            raise ScoresError(f"{path}: is of epoch {predictions.header['epoch']}")
        parts.append(predictions)
    return parts[0] if len(parts) == 1 else join_predictions(parts)


def saved_epochs(run_dir: Path) -> list[int]:
    """Return the epochs of a run whose predictions are saved.

    Raises:
        ScoresError: there are none.
    """
    if not run_dir.is_dir():
        raise ScoresError(f"{run_dir}: no such folder of a run")
    saved = numbered_files(run_dir / "predictions", ".npz")
    if not saved:
        raise ScoresError(
            f"{run_dir / 'predictions'}: holds no predictions; --action train makes them"
        )
    return saved


def score_images(
    predictions: Predictions, *, threshold: float, nms: float, shrink: float, gate: str
) -> FloatArray:
    """Score every image at one setting.

    Returns:
        (I,) mean precision over the IoU thresholds, NaN where the image does not count.
    """
    found, rows = _select(predictions, suppress_at(predictions, [nms])[0])
    found = found._replace(xywh=shrink_boxes(found.xywh, shrink))
    true = Boxes(to_xywh(predictions.true_boxes_xyxy), predictions.true_offsets)
    steps = precision_steps(found, true)
    values = gate_scores(predictions, gate)[rows]
    return image_scores(found, steps, true.counts(), values, threshold)


def _common_epochs(run_dirs: Sequence[Path]) -> list[int]:
    epochs = [saved_epochs(run_dir) for run_dir in run_dirs]
    common = sorted(set(epochs[0]).intersection(*epochs[1:]))
    if not common:
        had = "; ".join(f"{d.name} has {e}" for d, e in zip(run_dirs, epochs, strict=True))
        raise ScoresError(f"the runs have no epoch in common: {had}")
    return common


def _select(predictions: Predictions, kept: NDArray[np.bool_]) -> tuple[Boxes, NDArray[np.int64]]:
    """Return the kept candidates as boxes, and their rows."""
    rows = np.flatnonzero(kept)
    offsets = np.concatenate([[0], np.cumsum(kept)])[predictions.offsets]
    return Boxes(to_xywh(predictions.boxes_xyxy[rows]), offsets), rows


def _describe(sweep: Sweep, run_dirs: Sequence[Path]) -> Iterator[str]:
    """Say what came out best, how sure that is, and how flat the optimum."""
    best = sweep.best()
    setting = {name: best[name] for name in ("gate", "shrink", "nms", "threshold")}
    low, high = bootstrap_interval(score_images(load_epoch(run_dirs, best["epoch"]), **setting))
    yield f"best score {best['score']:.4f} (95 % of bootstrap draws {low:.4f} to {high:.4f})"
    yield "  at " + ", ".join(f"{name} {best[name]}" for name in AXES)
    near = sweep.near_best()
    yield f"  within {NEAR_BEST} of it: " + "; ".join(
        f"{name} {', '.join(map(str, near[name]))}" for name in AXES if len(near[name]) > 1
    )


def _pools(sweeps: dict[Path, Sweep]) -> Iterator[tuple[str, list[Path]]]:
    """Find the models of which all folds are there: the name of the pool and its runs."""
    groups: dict[tuple[Any, Any], dict[int, Path]] = {}
    for run_dir, sweep in sweeps.items():
        header = sweep.header
        groups.setdefault((header["model"], header["tag"]), {})[header["fold"]] = run_dir
    for (model, tag), by_fold in groups.items():
        if set(by_fold) == set(range(N_FOLDS)):
            name = Run(str(model), 0, str(tag or ""), Path()).name.removesuffix("_fold_0")
            yield f"{name}_all_folds", [by_fold[fold] for fold in sorted(by_fold)]


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser("Sweep score and NMS thresholds over the saved predictions of runs.")
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="folders of runs, such as output/demo_fold_0; with "
        "--truth submission files")  # fmt: skip
    add("--truth", type=Path, help="labels to score submissions against")
    add("--truth-classes", type=Path, help="classes of the same images, for a score of each")
    add("--epochs", type=int, nargs="+", help="default: all saved ones")
    add("--thresholds", type=float, nargs="+", default=SCORE_THRESHOLDS, help="on score x 5")
    add("--nms", type=float, nargs="+", default=NMS_GRID, help="IoU thresholds of the suppression")
    add("--shrinks", type=float, nargs="+", default=SHRINK_GRID, help="factors on boxes' sides")
    add("--gates", nargs="+", choices=GATES, default=GATES, help="what meets the threshold")
    return parser.parse_args()


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        if arguments.truth is not None:
            _score_submissions(arguments)
            return
        grid = {
            "thresholds": arguments.thresholds,
            "nms": arguments.nms,
            "shrinks": arguments.shrinks,
            "gates": arguments.gates,
        }
        sweeps: dict[Path, Sweep] = {}
        for run_dir in arguments.runs:
            sweeps[run_dir] = sweep_run(run_dir, arguments.epochs, **grid)
            _save(sweeps[run_dir], run_dir, [run_dir])
        for name, run_dirs in _pools(sweeps):
            sweep = sweep_pooled(run_dirs, arguments.epochs, **grid)
            _save(sweep, run_dirs[0].parent / name, run_dirs)


def _score_submissions(arguments: argparse.Namespace) -> None:
    from src.leaderboard import score_submission

    for path in arguments.runs:
        result = score_submission(path, arguments.truth, arguments.truth_classes)
        print(f"{path}:", *result.lines(), sep="\n  ")


def _save(sweep: Sweep, folder: Path, run_dirs: Sequence[Path]) -> None:
    path = folder / "sweep.npz"
    sweep.save(path)
    print(f"{folder.resolve().name}:", "\n".join(_describe(sweep, run_dirs)))
    print(f"  {path.with_suffix('.csv')}")


if __name__ == "__main__":
    main()
