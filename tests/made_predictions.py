"""Predictions and scores that several tests make up, without a network."""

from dataclasses import replace

import numpy as np

from src.prediction.predictions import Predictions, optional_arrays
from src.prediction.presets import Postprocess
from src.prediction.provenance import Provenance
from src.retinanet.settings import WeakLimits
from src.scoring.sweep import ScoredRun, Sweep

FILE_SIDE = 1024  # pixels of the images' files
ALL = Postprocess(threshold=0.0, nms=1.0)  # lets every box through
WHOLE = [0, 0, 100, 100]  # a box


def offsets_of(counts):
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def provenance_of(*, img_size=192, epoch=0, fold=0):
    return Provenance(img_size=img_size, model="demo", fold=fold, tag="", epoch=epoch)


def random_predictions(seed=0, *, n_images=8, img_size=192, epoch=0):
    """Candidates around true boxes, some of them hits; images without either are among them."""
    rng = np.random.default_rng(seed)
    n_true, n_found = rng.integers(0, 4, n_images), rng.integers(0, 9, n_images)
    corners = rng.uniform(0, img_size / 2, (n_true.sum(), 2))
    true = np.concatenate([corners, corners + rng.uniform(20, img_size / 2, corners.shape)], axis=1)
    starts = offsets_of(n_true)
    boxes, scores = [], []
    for image, count in enumerate(n_found):
        own = true[starts[image] : starts[image + 1]]
        base = own[rng.integers(0, len(own), count)] if len(own) else np.full((count, 4), 20.0)
        moved = np.clip(base + rng.normal(0, 8, (count, 4)), 0, img_size)
        boxes.append(np.maximum(moved, np.tile(moved[:, :2] + 4, 2) - [4, 4, 0, 0]))
        scores.append(np.sort(rng.uniform(0.03, 1, count))[::-1])
    return Predictions(
        ids=np.array([f"patient-{i}" for i in range(n_images)]),
        image_sizes=np.full((n_images, 2), FILE_SIDE),
        class_probs=rng.dirichlet([1, 1, 1], n_images).astype(np.float32),
        offsets=offsets_of(n_found),
        boxes_xyxy=np.concatenate(boxes).astype(np.float32),
        scores=np.concatenate(scores).astype(np.float32),
        **optional_arrays(n_images),
        true_offsets=starts,
        true_boxes_xyxy=true.astype(np.float32),
        true_categories=np.where(n_true > 0, 2, 1),
        provenance=provenance_of(img_size=img_size, epoch=epoch),
    )


def make_predictions(*images, probs=None, ids=None, img_size=192, epoch=0):
    """Lay out images, each given as (true boxes, [(found box, score), ...]), all boxes xyxy."""
    n = len(images)
    true = [box for boxes, _ in images for box in boxes]
    found = [pair for _, pairs in images for pair in pairs]
    return Predictions(
        ids=np.array(ids or [f"image-{i}" for i in range(n)], dtype=str),
        image_sizes=np.full((n, 2), FILE_SIDE),
        class_probs=np.array(probs or [[0.2, 0.3, 0.5]] * n, np.float32).reshape(-1, 3),
        offsets=offsets_of([len(pairs) for _, pairs in images]),
        boxes_xyxy=np.array([box for box, _ in found], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score in found], np.float32),
        **optional_arrays(n),
        true_offsets=offsets_of([len(boxes) for boxes, _ in images]),
        true_boxes_xyxy=np.array(true, np.float32).reshape(-1, 4),
        true_categories=np.array([2 if boxes else 1 for boxes, _ in images], dtype=np.int64),
        provenance=provenance_of(img_size=img_size, epoch=epoch),
    )


def with_weak_boxes(predictions, seed=0):
    """Add weaker boxes beside the candidates of every image."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, len(predictions))
    corners = rng.uniform(0, predictions.img_size / 2, (counts.sum(), 2))
    boxes = np.hstack([corners, corners + rng.uniform(4, predictions.img_size / 2, corners.shape)])
    scores = [np.sort(rng.uniform(0.005, 0.02, count))[::-1] for count in counts]
    return replace(
        predictions,
        weak_offsets=offsets_of(counts),
        weak_boxes_xyxy=boxes.astype(np.float32),
        weak_scores=np.concatenate(scores).astype(np.float32),
        provenance=replace(predictions.provenance, weak=WeakLimits()),
    )


def three_boxes(image_sizes=((1024, 1024), (1024, 1024)), scores=(0.9, 0.8, 0.12345)):
    """Three candidates in the first image, none in the second; input of 192 px, no truth."""
    boxes = [[16, 32, 48, 96], [16, 40, 48, 96], [100, 0, 160.06, 192]]  # the second overlaps
    return Predictions(
        ids=np.array(["first", "second"]),
        image_sizes=np.array(image_sizes),
        class_probs=np.full((2, 3), 1 / 3, np.float32),
        offsets=offsets_of([3, 0]),
        boxes_xyxy=np.array(boxes, np.float32),
        scores=np.array(scores, np.float32),
        **optional_arrays(2),
        true_offsets=np.zeros(3, np.int64),
        true_boxes_xyxy=np.zeros((0, 4), np.float32),
        true_categories=np.array([-1, -1]),
        provenance=Provenance(img_size=192),
    )


def make_fold(fold, epoch=0, **changes):
    """Eight images of their own for each fold; `changes` of what made their predictions."""
    part = random_predictions(10 * fold + epoch, epoch=epoch)
    ids = np.array([f"patient-{fold}-{i}" for i in range(len(part))])
    return replace(part, ids=ids, provenance=replace(part.provenance, fold=fold, **changes))


def save_epoch(run_dir, predictions):
    """Save predictions where a training does, under their epoch."""
    predictions.save(run_dir / "predictions" / f"{predictions.provenance.epoch:03}.npz")


def save_run(folder, *epochs):
    """Save random predictions of some epochs of a run, and return its folder."""
    run_dir = folder / "demo_fold_0"
    for epoch in epochs:
        save_epoch(run_dir, random_predictions(epoch, epoch=epoch))
    return run_dir


def save_folds(folder, folds=range(4), epochs=(0, 1)):
    """Save some epochs of some folds, and return the runs' folders."""
    run_dirs = [folder / f"demo_fold_{fold}" for fold in folds]
    for fold, run_dir in zip(folds, run_dirs, strict=True):
        for epoch in epochs:
            save_epoch(run_dir, make_fold(fold, epoch))
    return run_dirs


def make_sweep(scores, *, epochs=None, thresholds=(0.1, 0.3, 1.0)):
    """Scores (epochs, thresholds) as check_metric sweeps them: all else at its default."""
    table = np.array(scores, dtype=np.float64)[:, None, None, None, :]
    epochs = tuple(range(len(table))) if epochs is None else epochs
    thresholds = thresholds[: table.shape[-1]]
    run = ScoredRun(model="demo")
    return Sweep(epochs, ("score",), (1.0,), (0.05,), thresholds, table, run)
