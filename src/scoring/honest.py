"""The score that settings reach on images that did not choose them.

The best of thousands of settings is best by chance as well: its score on the images that chose it
is too high. Here the images are dealt into parts, and each part is scored at the setting, epoch
included, that is best on the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.metric import (
    FloatArray,
    IntArray,
    bootstrap_interval,
    image_scores,
    mean_of_counted,
    mean_score,
)
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import Predictions, join_predictions, take_images
from src.prediction.saved_epochs import LoadEpoch, load_epoch
from src.scoring.grid import Grid, sweep_sums
from src.scoring.sweep import BestSetting, Sweep

N_PARTS = 4  # of the images of a single run


@dataclass(frozen=True, eq=False)
class HonestScore:
    """What the settings that other images chose score.

    Attributes:
        settings: the one that each part was scored at, in the order of the parts; None where the
            others chose none, and the part's images score as they do without a box.
        image_scores: (I,) of all parts, NaN where an image does not count.
        patients: (I,) the patient that each image belongs to.
    """

    settings: tuple[BestSetting | None, ...]
    image_scores: FloatArray
    patients: IntArray

    @property
    def score(self) -> float:
        """Return the mean over the images that count; NaN where none does."""
        return mean_score(self.image_scores)

    def interval(self) -> tuple[float, float]:
        """Return where 95 % of bootstrap draws of the score lie, the chosen settings fixed."""
        return bootstrap_interval(self.image_scores, self.patients)


def honest_score(
    run_dirs: Sequence[Path], sweep: Sweep, *, load: LoadEpoch = load_epoch
) -> HonestScore:
    """Score the images of runs at settings that other images chose.

    The images of several runs, such as the folds of a model, are parts as they are: each fold is
    scored at the setting that is best on the other folds. Those of one run are dealt into
    `N_PARTS` by their patients, always in the same way.

    Args:
        run_dirs: the runs that were swept together.
        sweep: their sweep, for its axes.
        load: gives the predictions of an epoch, as it did for the sweep.

    Raises:
        InputError: see `sweep_pooled`.
    """
    grid = Grid(
        gates=sweep.gates, shrinks=sweep.shrinks, nms=sweep.nms, thresholds=sweep.thresholds
    )
    sums = [
        [sweep_sums(part, grid) for part in _load_parts(run_dirs, epoch, load)]
        for epoch in sweep.epochs
    ]
    totals, n_counted = (
        np.array([[each[i] for each in parts] for parts in sums]) for i in (0, 1)
    )  # (epochs, parts, gates, shrinks, nms, thresholds)
    settings, scored = [], list[Predictions]()
    for part in range(totals.shape[1]):
        others = np.arange(totals.shape[1]) != part
        best = Sweep(
            *(sweep.epochs, sweep.gates, sweep.shrinks, sweep.nms, sweep.thresholds),
            mean_of_counted(totals[:, others].sum(axis=1), n_counted[:, others].sum(axis=1)),
            sweep.run,
        ).best()
        settings.append(best)
        epoch = sweep.epochs[-1] if best is None else best.epoch
        scored.append(_load_parts(run_dirs, epoch, load)[part])
    scores = [_score_part(images, best) for images, best in zip(scored, settings, strict=True)]
    patients = join_predictions(scored).patients
    return HonestScore(tuple(settings), np.concatenate(scores), patients)


def _score_part(images: Predictions, best: BestSetting | None) -> FloatArray:
    if best is None:
        return np.where(images.truth().counts() > 0, 0.0, np.nan)
    return image_scores(choose_boxes(images, best.postprocess).boxes, images.truth())


def _load_parts(run_dirs: Sequence[Path], epoch: int, load: LoadEpoch) -> list[Predictions]:
    """Load the predictions of an epoch, part by part.

    Of a single run, the part of an image depends on its patient's group alone, or on its id where
    it has none.
    """
    if len(run_dirs) > 1:
        return [load([run_dir], epoch) for run_dir in run_dirs]
    predictions = load(run_dirs, epoch)
    names = np.where(predictions.group_ids == "", predictions.ids, predictions.group_ids)
    parts = np.array([zlib.crc32(name.encode()) % N_PARTS for name in names.tolist()])
    return [
        take_images(predictions, np.flatnonzero(parts == part).tolist()) for part in range(N_PARTS)
    ]
