"""The challenge's score over a grid of thresholds: plain loops, this project, faster-coco-eval.

And the numbers that papers quote, each with its interval, on made-up images.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import config
from scripts.benchmarks.growth import invent_predictions
from scripts.benchmarks.measuring import Row, describe_machine, report_tables, time_in_turn
from src.datasets.annotations import Record, read_records
from src.datasets.data_folder import DataFolder
from src.datasets.folds import load_folds, split_records
from src.metric import IOU_THRESHOLDS, Boxes, FloatArray, dataset_scores, precision_steps
from src.scoring.quoted_numbers import N_DRAWS, compute_numbers
from src.scoring.scored_images import ScoredImages
from tests import oracles

SCORE_LEVELS = tuple(np.linspace(0.1, 0.85, 16).tolist())
JITTER = 0.08  # of a box's sides, standard deviation
N_BOXES = 100  # of each image that the numbers are computed from
FALSE_ALARM_RATE = 1.0  # low-scored boxes to an image, on average, as trained nets leave them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR, help="labels are read")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--runs", type=int, default=5, help="timed runs; the median counts")
    parser.add_argument("--images", type=int, default=6422, help="that papers' numbers are of")
    parser.add_argument("--json", type=Path, help="write the numbers")


def run(arguments: argparse.Namespace) -> None:
    """Time each way on the labels of one fold with jittered detections."""
    folder = DataFolder(arguments.data_dir)
    _, records = split_records(read_records(folder), load_folds(folder), arguments.fold)
    found = [invent_detections(record, seed) for seed, record in enumerate(records)]
    predicted = _table([boxes for boxes, _ in found])
    true = _table([record.boxes_xywh for record in records])
    scores = np.concatenate([scores for _, scores in found])
    images = [
        (record.boxes_xywh.tolist(), boxes.tolist(), image_scores.tolist())
        for record, (boxes, image_scores) in zip(records, found, strict=True)
    ]

    def loops() -> list[float]:
        return [oracles.dataset_score(images, level) for level in SCORE_LEVELS]

    def ours() -> FloatArray:
        steps = precision_steps(predicted, true)
        return dataset_scores(predicted, steps, true.counts(), scores, SCORE_LEVELS)

    np.testing.assert_allclose(ours(), loops(), atol=1e-12)
    ways: dict[str, Callable[[], object]] = {"plain loops": loops, "src.metric": ours}
    coco = _coco_evaluation(records, found)
    if coco is not None:
        ways["faster-coco-eval"] = coco
    timings = time_in_turn(list(ways.values()), n_runs=arguments.runs)
    ours_median = timings[1].median
    rows: list[Row] = [
        {
            "way": name,
            "median ms": timing.median * 1e3,
            "fastest ms": timing.fastest * 1e3,
            "slowest ms": timing.slowest * 1e3,
            "times src.metric": timing.median / ours_median,
        }
        for name, timing in zip(ways, timings, strict=True)
    ]
    print(
        f"{len(records)} images, {len(true.xywh)} true boxes, {len(scores)} detections, "
        f"{len(SCORE_LEVELS)} score x {len(IOU_THRESHOLDS)} IoU thresholds\n"
    )
    if coco is None:
        print("faster-coco-eval is not installed: pip install faster-coco-eval to compare\n")
    numbers = [time_numbers(arguments.images, n_draws) for n_draws in (0, N_DRAWS)]
    tables = {"rows": rows, "numbers": numbers}
    report_tables(tables, describe_machine("cpu", 1), arguments.json)


def time_numbers(n_images: int, n_draws: int) -> Row:
    """Time all numbers that papers quote, with intervals from so many draws of the patients."""
    predictions = invent_predictions(n_images, N_BOXES)
    scores = predictions.scores.astype(np.float64)
    data = ScoredImages(
        ids=predictions.ids.tolist(),
        patients=np.arange(n_images),
        predicted=predictions.candidates(),
        scores=scores,
        true=predictions.truth(),
        image_scores={"best box": scores[predictions.offsets[:-1]]},
    )
    (timing,) = time_in_turn(
        [lambda: compute_numbers(data, n_draws)], n_runs=3, clock=time.process_time
    )
    return {"images": n_images, "boxes an image": N_BOXES, "draws": n_draws,
            "median processor s": timing.median}  # fmt: skip


def invent_detections(record: Record, seed: int) -> tuple[FloatArray, FloatArray]:
    """Jitter the true boxes and add false alarms: (N, 4) xywh and (N,) scores, descending."""
    rng = np.random.default_rng(seed)
    true = record.boxes_xywh
    jittered = true + rng.normal(0, JITTER, true.shape) * np.tile(true[:, 2:], 2)
    n_false = rng.poisson(FALSE_ALARM_RATE)
    false = np.hstack([rng.uniform(0, 600, (n_false, 2)), rng.uniform(80, 400, (n_false, 2))])
    boxes = np.concatenate([jittered, false])
    scores = np.concatenate([rng.beta(4, 3, len(true)), rng.beta(2, 4, n_false)])
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


def _table(parts: list[FloatArray]) -> Boxes:
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return Boxes(np.concatenate(parts), offsets)


def _coco_evaluation(
    records: list[Record], found: list[tuple[FloatArray, FloatArray]]
) -> Callable[[], object] | None:
    """Set up COCO's evaluation of the same detections; another score, the same matching work."""
    try:
        # Not of the project's requirements.
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        return None
    truth = {
        "info": {},
        "images": [{"id": i, "width": 1024, "height": 1024} for i in range(len(records))],
        "categories": [{"id": 1, "name": "opacity"}],
        "annotations": [],
    }
    boxes = [(i, box) for i, record in enumerate(records) for box in record.boxes_xywh.tolist()]
    truth["annotations"] = [
        {
            "id": k + 1,
            "image_id": image,
            "category_id": 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for k, (image, box) in enumerate(boxes)
    ]
    detections = np.array(
        [
            [i, *box, score, 1]
            for i, (image_boxes, scores) in enumerate(found)
            for box, score in zip(image_boxes.tolist(), scores.tolist(), strict=True)
        ]
    )

    with contextlib.redirect_stdout(io.StringIO()):
        coco_truth = COCO(truth)
        coco_found = coco_truth.loadRes(detections)  # its tables are built before the clock starts

    def evaluate() -> object:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval_faster(coco_truth, coco_found, "bbox")
            evaluation.params.iouThrs = np.array(IOU_THRESHOLDS)
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation

    return evaluate
