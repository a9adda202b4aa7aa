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
from src.datasets.annotations import IMAGE_SIZE, Record, read_records
from src.datasets.data_folder import DataFolder
from src.datasets.folds import load_folds, split_records
from src.metric import FloatArray, map_iou
from src.structures import MAX_FOLDS
from src.system.command_line import CommandParser, below, report_errors
from src.system.errors import InputError


def median_boxes(records: Sequence[Record]) -> list[FloatArray]:
    """Return the constant predictions to choose from, each (N, 4) xywh.

    Raises:
        InputError: there are no boxes.
    """
    boxes = np.concatenate([record.boxes_xywh for record in records])
    if len(boxes) == 0:
        raise InputError("the training folds hold no boxes: there is no median box")
    on_left = boxes[:, 0] + boxes[:, 2] / 2 < IMAGE_SIZE / 2
    halves = [np.median(half, axis=0) for half in (boxes[on_left], boxes[~on_left]) if len(half)]
    return [np.median(boxes, axis=0)[None], np.array(halves)]


def constant_score(records: Sequence[Record], boxes_xywh: FloatArray) -> float:
    """Score the same boxes (N, 4), predicted for every image."""
    scores = np.ones(len(boxes_xywh))
    each = [map_iou(record.boxes_xywh, boxes_xywh, scores) for record in records]
    return float(np.mean([score for score in each if score is not None]))


def main() -> None:
    parser = CommandParser("Score constant boxes on a validation fold.")
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    parser.add_argument("--fold", type=below(MAX_FOLDS), default=0, help="validation fold")
    arguments = parser.parse_args()
    with report_errors():
        folder = DataFolder(arguments.data_dir)
        train, valid = split_records(read_records(folder), load_folds(folder), arguments.fold)
        best = max(median_boxes(train), key=lambda boxes: constant_score(train, boxes))
        print(f"constant boxes score {constant_score(valid, best):.4f} on fold {arguments.fold}:")
        for x, y, width, height in best:
            print(f"  x {x:.0f} y {y:.0f} width {width:.0f} height {height:.0f}")


if __name__ == "__main__":
    main()
