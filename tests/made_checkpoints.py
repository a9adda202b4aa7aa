"""Checkpoints to save and read, in today's form and in that of version 1."""

import json
from dataclasses import asdict, replace
from typing import Any

import torch

from src.experiments.checkpoints import (
    FACTS_KEY,
    Checkpoint,
    CheckpointFacts,
    TrainingState,
    load_checkpoint,
)
from src.experiments.table import EXPERIMENTS
from src.system.tensor_files import load_tensors, save_tensors


def make_checkpoint(model=None, *, optimizer=None, **facts):
    """Make a checkpoint of the demo; `facts` change what it says of itself."""
    plain: dict[str, Any] = {"experiment": "demo", "settings": EXPERIMENTS["demo"], "epoch": 5}
    if model is None:
        model = {"weight": torch.rand(3, 4), "bias": torch.rand(3)}
    return Checkpoint(
        facts=CheckpointFacts(**(plain | facts)), model=model, optimizer=optimizer or {}
    )


def make_state(**changes):
    """Make the state of a training that has done one epoch."""
    plain: dict[str, Any] = {
        "param_groups": ({"lr": 1e-5, "betas": (0.9, 0.999), "params": [0, 1]},),
        "scheduler": {"last_epoch": 1, "best": float("inf")},
        "scaler": {},
        "history": ({"epoch": 0, "train_loss": 0.1 + 0.2},),
        "progress": {"epoch": 1, "running": [0.0, 1e-300, 3]},
        "seed": 7,
        "precision": "fp32",
    }
    return TrainingState(**(plain | changes))


def copy_checkpoint(source, target, **facts):
    """Copy a checkpoint with other facts."""
    checkpoint = load_checkpoint(source)
    replace(checkpoint, facts=replace(checkpoint.facts, **facts)).save(target)


def rewrite_facts(path, change):
    """Let a function change the JSON that a checkpoint holds, whatever comes of it."""
    tensors, metadata = load_tensors(path, checked=False)
    facts = json.dumps(change(json.loads(metadata[FACTS_KEY])))
    save_tensors(path, tensors, metadata | {FACTS_KEY: facts})


def as_version_1(checkpoint):
    """Return what a checkpoint of version 1 with the same content held."""
    facts = asdict(checkpoint.facts)
    training = {}
    if facts["training"]:
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in checkpoint.optimizer.items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = tensor
        groups = list(facts["training"].pop("param_groups"))
        history = list(facts["training"].pop("history"))
        optimizer = {"state": state, "param_groups": groups}
        training = facts["training"] | {"optimizer": optimizer, "history": history}
    return facts | {"version": 1, "model": checkpoint.model, "training": training}
