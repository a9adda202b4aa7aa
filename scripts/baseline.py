"""The score of constant boxes: what a detector must beat on a data set.

`python scripts/baseline.py --data-dir DIR --fold 0` chooses, on the training folds, the median box
of the whole image or the two median boxes of its halves, and scores them on the validation fold.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Sequence

import numpy as np

import config
from src.datasets.annotations import Record, read_records
from src.datasets.box_sizes import CHALLENGE_SIZE, Sizes, scaled_boxes, sizes_of_labelled
from src.datasets.data_folder import DataFolder
from src.datasets.folds import load_folds, split_records
from src.metric import FloatArray, map_iou
from src.structures import MAX_FOLDS
from src.system.command_line import CommandParser, below, report_errors
from src.system.errors import InputError


def median_boxes(records: Sequence[Record], sizes: Sizes) -> list[FloatArray]:
    """Return the constant predictions to choose from, each (N, 4) xywh.

    Raises:
        InputError: there are no boxes.
    """
    boxes = np.concatenate([scaled_boxes(record, sizes, CHALLENGE_SIZE) for record in records])
    if len(boxes) == 0:
        raise InputError("the training folds hold no boxes: there is no median box")
    on_left = boxes[:, 0] + boxes[:, 2] / 2 < CHALLENGE_SIZE[1] / 2
    halves = [np.median(half, axis=0) for half in (boxes[on_left], boxes[~on_left]) if len(half)]
    return [np.median(boxes, axis=0)[None], np.array(halves)]


def constant_score(records: Sequence[Record], boxes_xywh: FloatArray, sizes: Sizes) -> float:
    """Score the same boxes (N, 4), predicted for every image.

    All images are stretched to one size, which changes no overlap of boxes.
    """
    scores = np.ones(len(boxes_xywh))
    true = [scaled_boxes(record, sizes, CHALLENGE_SIZE) for record in records]
    each = [map_iou(boxes, boxes_xywh, scores) for boxes in true]
    return float(np.mean([score for score in each if score is not None]))


def main() -> None:
    parser = CommandParser("Score constant boxes on a validation fold.")
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    parser.add_argument("--fold", type=below(MAX_FOLDS), default=0, help="validation fold")
    arguments = parser.parse_args()
    with report_errors():
        folder = DataFolder(arguments.data_dir)
        records = read_records(folder)
        train, valid = split_records(records, load_folds(folder), arguments.fold)
        sizes = sizes_of_labelled(folder, records)
        best = max(median_boxes(train, sizes), key=lambda b: constant_score(train, b, sizes))
        score = constant_score(valid, best, sizes)
        print(f"constant boxes score {score:.4f} on fold {arguments.fold}:")
        if set(sizes.values()) != {CHALLENGE_SIZE}:
            print("  in each image stretched to {1} x {0} pixels:".format(*CHALLENGE_SIZE))
        for x, y, width, height in best:
            print(f"  x {x:.0f} y {y:.0f} width {width:.0f} height {height:.0f}")


if __name__ == "__main__":
    main()
