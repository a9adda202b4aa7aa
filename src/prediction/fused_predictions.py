"""The boxes of several detectors as predictions that can be swept and scored like one's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.experiments.runs import Run
from src.metric import Boxes, FloatArray, IntArray
from src.prediction.fused_submission import fuse_images
from src.prediction.fusion import Fused
from src.prediction.fusion_inputs import Detections
from src.prediction.fusion_settings import Fusion
from src.prediction.postprocess import suppress_at
from src.prediction.predictions import Predictions, no_weak_boxes, to_xywh
from src.prediction.provenance import FusedFile, FusedFiles, Provenance
from src.retinanet.settings import DEFAULT_WEAK
from src.system.errors import InputError
from src.system.files import sha256_of

FUSED_EPOCH = 0  # of a run that a fusion makes: its only one


class _Found(NamedTuple):
    """The boxes of all images: their images (K,), xyxy (K, 4) in input pixels, and scores (K,)."""

    images: IntArray
    boxes_xyxy: FloatArray
    scores: FloatArray

    def arrays(self, n_images: int, prefix: str = "") -> dict[str, NDArray[Any]]:
        """Return them as arrays of `Predictions`."""
        return {
            f"{prefix}offsets": np.searchsorted(self.images, np.arange(n_images + 1)),
            f"{prefix}boxes_xyxy": self.boxes_xyxy.astype(np.float32),
            f"{prefix}scores": self.scores.astype(np.float32),
        }


def fuse_predictions(
    inputs: Sequence[Detections],
    weights: Sequence[float],
    fusion: Fusion,
    *,
    folder: Path,
    run: Run | None = None,
) -> Predictions:
    """Fuse what several detectors found to what one would have found.

    All but the boxes and the class probabilities is that of the first predictions among the
    inputs: images, truth, network input. The probabilities are the weighted mean of those of all
    predictions. Candidates are fused of candidates and submitted boxes alone, so that those of
    images with and without weaker boxes are fused alike. Where every input holds weaker boxes,
    those of a second fusion of all boxes that lie beside the fused candidates are kept as such.

    Args:
        inputs: of the same images; one at least holds predictions.
        weights: one for each input.
        folder: where the result will lie; the inputs are named relative to it.
        run: that the result will belong to.
    """
    first = next(own.predictions for own in inputs if own.predictions is not None)
    fused = _fuse(first, [own.found for own in inputs], weights, fusion)
    everything = [found for own in inputs if (found := own.with_weak()) is not None]
    provenance = _provenance(first, inputs, weights, fusion, folder=folder, run=run)
    weak = no_weak_boxes(len(first))
    is_cut = max(fusion.skip_below, fusion.threshold) > DEFAULT_WEAK.min_score
    if len(everything) == len(inputs) and not is_cut:
        beside = _find_beside(fused, _fuse(first, everything, weights, fusion))
        weak = beside.arrays(len(first), "weak_")
        provenance = replace(provenance, weak=DEFAULT_WEAK)
    return replace(
        first,
        class_probs=_mean_probs(first, inputs, weights),
        **fused.arrays(len(first)),
        **weak,
        provenance=provenance,
    )


def _fuse(
    first: Predictions,
    found: Sequence[Mapping[str, Fused]],
    weights: Sequence[float],
    fusion: Fusion,
) -> _Found:
    """Fuse the boxes of every image of some predictions, in their order and input pixels."""
    patients = first.patient_ids
    sizes = {p: (height, width) for p, (height, width) in zip(
        patients, first.image_sizes.tolist(), strict=True)}  # fmt: skip
    fused = fuse_images(patients, found, weights, fusion, size_of=sizes.get).values()
    boxes = [first.in_input_pixels(image, own) for image, (own, _) in enumerate(fused)]
    return _Found(
        np.repeat(np.arange(len(boxes)), [len(own) for own in boxes]),
        np.concatenate([np.zeros((0, 4)), *boxes]),
        np.concatenate([np.zeros(0), *(scores for _, scores in fused)]),
    )


def _find_beside(fused: _Found, everything: _Found) -> _Found:
    """Keep the boxes that overlap neither a fused one nor a better one of their own too much."""
    images = np.concatenate([fused.images, everything.images])
    order = np.argsort(images, kind="stable")
    boxes = to_xywh(np.concatenate([fused.boxes_xyxy, everything.boxes_xyxy]))[order]
    offsets = np.searchsorted(images[order], np.arange(images.max(initial=-1) + 2))
    kept = np.zeros(len(images), dtype=bool)
    kept[order] = suppress_at(Boxes(boxes, offsets), [DEFAULT_WEAK.max_iou])[0]
    is_beside = kept[len(fused.images) :] & (everything.scores > DEFAULT_WEAK.min_score)
    rows = np.flatnonzero(is_beside)
    rank = np.arange(len(rows)) - np.searchsorted(everything.images[rows], everything.images[rows])
    rows = rows[rank < DEFAULT_WEAK.max_count]
    return _Found(everything.images[rows], everything.boxes_xyxy[rows], everything.scores[rows])


def _mean_probs(
    first: Predictions, inputs: Sequence[Detections], weights: Sequence[float]
) -> NDArray[np.float32]:
    """Return the weighted mean of the class probabilities of all predictions, (I, 3)."""
    total, probs = 0.0, np.zeros(first.class_probs.shape)
    for own, weight in zip(inputs, weights, strict=True):
        if own.predictions is not None:
            rows = {patient: row for row, patient in enumerate(own.predictions.patient_ids)}
            order = [rows[patient] for patient in first.patient_ids]
            probs += weight * own.predictions.class_probs[order].astype(np.float64)
            total += weight
    return (probs / total).astype(np.float32)


def _provenance(
    first: Predictions,
    inputs: Sequence[Detections],
    weights: Sequence[float],
    fusion: Fusion,
    *,
    folder: Path,
    run: Run | None,
) -> Provenance:
    """Say what was fused.

    Raises:
        InputError: the run is of another fold than the inputs.
    """
    files = [
        FusedFile(
            file=Path(os.path.relpath(own.path, folder)).as_posix(),
            sha256=sha256_of(own.path),
            weight=weight / sum(weights),
            **_network_of(own),
        )
        for own, weight in zip(inputs, weights, strict=True)
    ]
    folds = {file.fold for file in files if file.fold is not None}
    if run is not None and folds - {run.fold}:
        raise InputError(
            f"{run.dir}: the inputs are of fold {', '.join(map(str, sorted(folds)))}, which the "
            f"name of the folder must say"
        )
    settings = next(own.postprocess for own in inputs if own.postprocess is not None)
    return replace(
        first.provenance,
        model=None if run is None else run.model,
        tag=None if run is None else run.tag,
        fold=folds.pop() if len(folds) == 1 else None,
        epoch=None if run is None else FUSED_EPOCH,
        ensemble=None,
        weak=None,
        fusion=FusedFiles(
            inputs=tuple(files), fusion=fusion, nms=settings.nms, shrink=settings.shrink
        ),
    )


def _network_of(own: Detections) -> dict[str, Any]:
    """Name the network, or the ensemble, of an input as its file does; nothing of a submission."""
    if own.predictions is None:
        return {}
    names = ("model", "tag", "fold", "epoch")
    return {name: getattr(own.predictions.provenance, name) for name in names}
