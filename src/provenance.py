"""Where the boxes of a CSV file come from, as a JSON file beside it.

Predictions are kept and used again with other settings: their own header does not tell what a CSV
was made with.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.files import write_json
from src.predictions import Predictions
from src.presets import Postprocess

IDENTITY = ("model", "tag", "fold", "epoch")  # of a network, in headers


def write_provenance(
    csv_path: Path, predictions: Predictions, predictions_path: Path, settings: Postprocess
) -> None:
    """Write `<csv stem>.json`: predictions file, networks with their weights, settings.

    Args:
        predictions_path: their file; it is named relative to the CSV file's folder.
        settings: with which the boxes were chosen.
    """
    content = {
        "predictions": Path(os.path.relpath(predictions_path, csv_path.parent)).as_posix(),
        **describe_networks(predictions.header),
        "postprocess": asdict(settings),
    }
    write_json(csv_path.with_suffix(".json"), content)


def describe_networks(header: dict[str, Any]) -> dict[str, Any]:
    """Return what made some predictions, by their header.

    Returns:
        members: model, tag, fold, epoch and weight of each network; the weights sum to 1.
        hflip: whether each saw the mirrored images as well.
    """
    ensemble = header.get("ensemble")
    if isinstance(ensemble, dict):
        return {name: ensemble.get(name) for name in ("members", "hflip")}
    alone = {name: header.get(name) for name in IDENTITY} | {"weight": 1.0}
    return {"members": [alone], "hflip": False}


def stored_sizes(header: dict[str, Any]) -> dict[str, Any]:
    """Return size_rule and k by which the sizes of some predictions were combined."""
    ensemble = header.get("ensemble")
    if isinstance(ensemble, dict) and ensemble.get("size_rule") == "percentile":
        k = ensemble.get("k")
        return {"size_rule": "percentile", "k": float(k) if isinstance(k, (int, float)) else None}
    return {"size_rule": "mean"}
