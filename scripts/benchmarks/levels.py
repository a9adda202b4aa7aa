"""Where the box head is needed: positive anchors by pyramid level on a data set's own boxes."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

import config
from scripts.benchmarks.arithmetic import box_head_flops
from scripts.benchmarks.measuring import Row, describe_machine, report
from src.datasets.annotations import read_records
from src.datasets.data_folder import DataFolder
from src.experiments.table import EXPERIMENTS
from src.retinanet.anchors import count_anchors, make_anchors
from src.retinanet.losses import match_anchors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR, help="labels are read")
    parser.add_argument("--model", default="se_resnext101_dr0.75_512", help="experiment")
    parser.add_argument("--side", type=int, default=1024, help="of the images, pixels")
    parser.add_argument("--json", type=Path, help="write the numbers")


def run(arguments: argparse.Namespace) -> None:
    """Count levels with positives, and the arithmetic of the box head that they save."""
    info = EXPERIMENTS[arguments.model]
    size = (info.img_size, info.img_size)
    anchors = make_anchors(size, info.pyramid_levels, info.anchor_shapes)
    counts = [count_anchors(size, level, info.anchor_shapes) for level in info.pyramid_levels]
    records = read_records(DataFolder(arguments.data_dir))
    n_needing = torch.zeros(len(counts), dtype=torch.long)
    n_positive = torch.zeros(len(counts), dtype=torch.long)
    n_boxes = n_answered = 0
    for record in tqdm([record for record in records if len(record.boxes_xywh)], "images"):
        boxes = torch.from_numpy(record.boxes_xywh * (info.img_size / arguments.side)).float()
        boxes[:, 2:] += boxes[:, :2]
        matches = match_anchors(anchors, [boxes], info.loss)
        positive = matches.positive[0]
        n_boxes += len(boxes)
        n_answered += len(matches.box_index[0][positive].unique())
        found = torch.stack([part.sum() for part in positive.split(counts)])
        n_positive += found
        n_needing += found > 0
    work = [box_head_flops(info, n_anchors) / 1e9 for n_anchors in counts]
    rows: list[Row] = [
        {
            "level": f"P{level}",
            "anchors": n_anchors,
            "positive anchors %": 100 * positive / max(1, int(n_positive.sum())),
            "images that need it %": 100 * needing / len(records),
            "box head GFLOP, full": full,
            "box head GFLOP, needed": full * needing / len(records),
        }
        for level, n_anchors, positive, needing, full in zip(
            info.pyramid_levels, counts, n_positive.tolist(), n_needing.tolist(), work, strict=True
        )
    ]
    total: Row = {"level": "all", "anchors": sum(counts), "positive anchors %": 100.0}
    total["images that need it %"] = (
        100 * sum(len(r.boxes_xywh) > 0 for r in records) / len(records)
    )
    for column in ("box head GFLOP, full", "box head GFLOP, needed"):
        total[column] = sum(row[column] for row in rows)
    print(f"{len(records)} images of {arguments.data_dir}, {arguments.model}, an image's mean")
    print(f"{n_boxes - n_answered:,} of {n_boxes:,} boxes have no anchor\n")
    report([*rows, total], describe_machine("cpu", 1), arguments.json)
