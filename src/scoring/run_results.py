"""What came of runs, and of runs that belong together: best epoch, scores, time and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.experiments.history import read_history
from src.experiments.run_groups import RunGroup
from src.experiments.runs import numbered_files
from src.metric import FloatArray, bootstrap_interval, image_scores, mean_score
from src.prediction.postprocess import choose_boxes
from src.scoring.grid import sweep_pooled
from src.scoring.honest import HonestScore, honest_score
from src.scoring.matching import load_labelled
from src.scoring.quoted_numbers import compute_numbers
from src.scoring.run_scores import choose_scores, honest_score_of
from src.scoring.scored_images import scored_predictions
from src.scoring.sweep import NothingToScoreError, Sweep, load_sweep
from src.system.errors import InputError

N_DRAWS = 200  # of patients, for the interval of average precision; as many as a report takes
# Columns of a history that older ones do not have, and how the epochs of a run are summarised.
COSTS: dict[str, Callable[[FloatArray], float]] = {
    "seconds": lambda values: float(values.sum()),
    "images_per_second": lambda values: float(np.median(values)),
    "peak_memory_mb": lambda values: float(values.max()),
}
NAN = float("nan")


class Estimate(NamedTuple):
    """A number with its 95 % interval; NaN where they are not known.

    Attributes:
        value: on the images themselves.
        low, high: of 95 % of bootstrap draws of patients.
    """

    value: float = NAN
    low: float = NAN
    high: float = NAN


UNKNOWN = Estimate()


class Spread(NamedTuple):
    """A number over several runs; NaN where it is not known, as the deviation of one run is.

    Attributes:
        mean: of the runs that have it.
        deviation: their standard deviation.
    """

    mean: float = NAN
    deviation: float = NAN


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What came of a run; None or NaN where its files do not say.

    Attributes:
        epochs: that are done.
        epoch, threshold: at which the scores are: the best, by the rule of `Sweep.choose`.
        score: the challenge's, chosen and measured on the same images.
        honest_score: at settings that other images chose.
        ap_50: average precision at IoU .50.
        seconds: of all epochs together.
        images_per_second: of the median epoch.
        peak_memory_mb: the greatest of all epochs.
        sweep: the scores of every epoch, saved or computed just now.
    """

    epochs: int | None = None
    epoch: int | None = None
    threshold: float = NAN
    score: Estimate = UNKNOWN
    honest_score: Estimate = UNKNOWN
    ap_50: Estimate = UNKNOWN
    seconds: float = NAN
    images_per_second: float = NAN
    peak_memory_mb: float = NAN
    sweep: Sweep | None = None


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """What came of runs that belong together.

    Attributes:
        score, honest_score, ap_50, seconds: of their results.
        out_of_fold: the score of the images of all folds as one set, each fold at the setting
            that is best on the others; NaN where the runs are not different folds.
        note: why there is none, where there should be one.
    """

    score: Spread
    honest_score: Spread
    ap_50: Spread
    seconds: Spread
    out_of_fold: Estimate = UNKNOWN
    note: str = ""


def read_result(run_dir: Path) -> RunResult:
    """Read what came of a run; what it does not have yet is left out.

    Raises:
        InputError: a file is there, and is something else.
    """
    return RunResult(**_read_costs(run_dir / "history.csv"), **_read_scores(run_dir))


def summarise_group(group: RunGroup, results: Sequence[RunResult]) -> GroupResult:
    """Summarise the results of the runs of a group."""
    spreads = {
        name: _spread([getattr(result, name).value for result in results])
        for name in ("score", "honest_score", "ap_50")
    }
    seconds = _spread([result.seconds for result in results])
    folds = {run.fold for run in group.runs}
    out_of_fold, note = UNKNOWN, ""
    if 1 < len(folds) == len(group.runs):
        try:
            out_of_fold = _score_folds([run.run_dir for run in group.runs])
        except InputError as error:
            note = str(error)
    return GroupResult(**spreads, seconds=seconds, out_of_fold=out_of_fold, note=note)


def _read_costs(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    history = read_history(path, (), optional=tuple(COSTS))
    costs: dict[str, Any] = {"epochs": len(history)}
    for name, summarise in COSTS.items():
        if name in history and len(history):
            costs[name] = summarise(history[name].to_numpy())  # NaN where one epoch does not say
    return costs


def _read_scores(run_dir: Path) -> dict[str, Any]:
    path, saved = run_dir / "scores.npz", numbered_files(run_dir / "predictions", ".npz")
    if not saved:
        return _saved_score(path) if path.exists() else {}
    try:
        shown = choose_scores(run_dir)
    except NothingToScoreError:  # predictions of images without labels, which were fused
        return {}
    if shown.epoch not in saved:
        return _saved_score(path)
    predictions = load_labelled(run_dir, shown.epoch)
    chosen = choose_boxes(predictions, shown.postprocess)
    scores = image_scores(chosen.boxes, predictions.truth())
    numbers = compute_numbers(scored_predictions(predictions, shown.postprocess), N_DRAWS)
    ap_50 = next(row for row in numbers if row.name == "ap_50")
    return {
        "epoch": shown.epoch,
        "threshold": shown.postprocess.threshold,
        "score": Estimate(mean_score(scores), *bootstrap_interval(scores, predictions.patients)),
        "honest_score": _estimate(honest_score_of(run_dir, shown.sweep)),
        "ap_50": Estimate(ap_50.value, ap_50.low, ap_50.high),
        "sweep": shown.sweep,
    }


def _saved_score(path: Path) -> dict[str, Any]:
    """Take the best of scores.npz, for a run whose predictions were removed."""
    sweep = load_sweep(path)
    best = sweep.best()
    if best is None:
        return {"sweep": sweep}
    score = Estimate(best.score)
    return {"epoch": best.epoch, "threshold": best.threshold, "score": score, "sweep": sweep}


def _score_folds(run_dirs: Sequence[Path]) -> Estimate:
    return _estimate(honest_score(run_dirs, sweep_pooled(run_dirs)))


def _estimate(honest: HonestScore | None) -> Estimate:
    return UNKNOWN if honest is None else Estimate(honest.score, *honest.interval())


def _spread(values: Sequence[float]) -> Spread:
    known = np.array(values)[~np.isnan(values)]
    return Spread(
        float(known.mean()) if len(known) else NAN,
        float(known.std(ddof=1)) if len(known) > 1 else NAN,
    )
