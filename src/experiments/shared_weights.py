"""Weights to share: one file from which anybody predicts without the run, its data or this table.

The file is a checkpoint of an epoch whose metadata also hold `SharedFacts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.experiments.checkpoints import SharedFacts, load_checkpoint
from src.experiments.experiment_file import read_stored_training
from src.experiments.pretraining import describe_pretraining
from src.experiments.runs import Run, read_description, require_weights
from src.retinanet.encoders.weight_sources import HubFile
from src.structures import CLASS_NAMES
from src.system.errors import InputError

SHARED_NAME = "model.safetensors"  # as the hub's own tools look for it
UNKNOWN_LICENCE = "unknown"
HUB_PREFIX = "hf:"
HUB_PLACE = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")


def find_shared_weights(place: str, downloads_dir: Path) -> Path:
    """Return a file of weights; download it where it is named on the Hugging Face hub.

    Args:
        place: a path, or `hf:owner/name` with `@revision` behind it, by default `@main`.
        downloads_dir: keeps what comes from the hub. A revision that is named by its whole commit
            is downloaded once; a branch or a tag is asked for each time.

    Raises:
        InputError: the file is not there, or cannot be downloaded.
    """
    if not place.startswith(HUB_PREFIX):
        return Path(place)
    match = HUB_PLACE.fullmatch(place)
    if match is None:
        raise InputError(f"{place}: not a place on the hub; hf:owner/name or "
                         f"hf:owner/name@revision would be right")  # fmt: skip
    source = HubFile(match["repository"], SHARED_NAME, match["revision"] or "main")
    stem = f"hf--{source.repository.replace('/', '--')}--{source.revision}"
    kept = downloads_dir / f"{stem}{source.suffix}"
    if COMMIT.fullmatch(source.revision) and kept.is_file():
        return kept
    try:
        downloads_dir.mkdir(parents=True, exist_ok=True)
        return source.download(downloads_dir, stem)
    except (OSError, RuntimeError) as error:  # no network, no such file, a wrong hash
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{place}: cannot be downloaded: {cause}") from error


def write_shared_weights(
    run: Run, epoch: int, path: Path, *, best: Mapping[str, Any] | None, licence: str | None
) -> SharedFacts:
    """Write the weights of an epoch of a run as a file to share.

    Args:
        best: see `SharedFacts`.
        licence: of the weights; None where nobody states it.

    Returns:
        What the file says beside a checkpoint.

    Raises:
        InputError: the run was not trained here, or its epoch is not there.
    """
    stored = read_stored_training(run.experiment_path)
    description = read_description(run.experiment_path)
    checkpoint_path = run.find_checkpoint(epoch) or run.checkpoint_path(epoch)
    checkpoint = load_checkpoint(require_weights(checkpoint_path), run.model)
    commit = description.get("git_commit")
    facts = SharedFacts(
        best=None if best is None else dict(best),
        class_names=CLASS_NAMES,
        pretraining=describe_pretraining(
            stored.settings, stored.init_weights, stored.encoder_weights
        ).began_with,
        data_fingerprint=stored.data_fingerprint,
        licence=licence or UNKNOWN_LICENCE,
        versions=_texts(description.get("versions"))
        | _texts({"python": description.get("python")}),
        git_commit=commit if isinstance(commit, str) else None,
    )
    whole = replace(checkpoint.facts, tag=run.tag, fold=run.fold, shared=facts)
    replace(checkpoint, facts=whole).save(path)
    return facts


def _texts(values: object) -> dict[str, str]:
    """Keep what of a JSON object is a text."""
    items = values.items() if isinstance(values, Mapping) else ()
    return {str(name): value for name, value in items if isinstance(value, str)}
