"""Folders of runs that several tests make up: how they were trained, and their histories."""

import json
from typing import Any

from src.experiments.history import write_history
from src.experiments.runs import Run
from src.structures import LOSS_NAMES

STORED: dict[str, Any] = {
    "settings": {"encoder": "resnet18", "batch_size": 8, "pyramid_levels": [3, 4], "n_epochs": 4},
    "seed": 1,
    "precision": "fp32",
    "data_fingerprint": "0123456789abcdef" * 4,
    "date": "2026-01-02T03:04:05+00:00",
    "ended_by": "all epochs",
    "command": ["src/train_runner.py", "--run", "a b"],
}


def describe_run(folder, model="demo", *, fold=0, tag="", settings=None, **changes):
    """Write the experiment.json of a training, and return the run's folder."""
    run = Run(model, fold, tag, folder)
    content = {"model": model, "tag": tag, "fold": fold, **STORED, **changes}
    content["settings"] = {**STORED["settings"], **(settings or {})}
    run.dir.mkdir(parents=True, exist_ok=True)
    run.experiment_path.write_text(json.dumps(content))
    return run.dir


def save_losses(run_dir, losses, **columns):
    """Write the history of a run that has a loss for each epoch, and further columns."""
    rows = [
        {
            "epoch": epoch,
            **{f"{part}_{name}": loss for part in ("train", "valid") for name in LOSS_NAMES},
            **{name: values[epoch] for name, values in columns.items()},
        }
        for epoch, loss in enumerate(losses)
    ]
    write_history(run_dir / "history.csv", rows)
    return run_dir
