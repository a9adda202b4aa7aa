"""history.csv: a row for each epoch of a run: losses, learning rate, gradient, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd

from src.system.csv_files import read_csv_bytes
from src.system.errors import InputError
from src.system.files import replaced_file
from src.system.records import MAX_CAUSE, cut_text

# What an epoch cost: columns that differ where a training is repeated. All others are the same.
COSTS = ("seconds", "valid_seconds", "images_per_second", "waiting_share", "peak_memory_mb")
NEWER_COLUMNS = ("gradient_norm", *COSTS)  # histories of older versions lack them


class HistoryError(InputError):
    """A history that is missing or something else."""


def write_history(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write one row for each epoch, whole or not at all."""
    with replaced_file(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.8g")


def epochs_since_least(rows: Sequence[Mapping[str, float]], column: str) -> int:
    """Count the epochs after the one with the least value of a column; NaN is never the least."""
    values = [row.get(column, math.nan) for row in rows]
    values = [math.inf if math.isnan(value) else value for value in values]
    return len(values) - 1 - values.index(min(values)) if values else 0


def read_history(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read the columns `epoch`, `columns`, and those of `optional` that are there.

    Raises:
        HistoryError: the file or a column is missing, or a cell is no number.
    """
    if not path.exists():
        raise HistoryError(f"{path}: no such history; --action train writes it")
    content = BytesIO(read_csv_bytes(path, HistoryError))
    try:
        table = pd.read_csv(content, low_memory=False)  # else pandas warns of columns of two types
        missing = [column for column in ("epoch", *columns) if column not in table]
        if missing:
            known = ", ".join(str(column) for column in table.columns)
            raise HistoryError(
                f"{path}: has no column {missing[0]}; it has {cut_text(known, MAX_CAUSE)}"
            )
        there = [column for column in optional if column in table]
        return table[["epoch", *columns, *there]].astype(float).astype({"epoch": int})
    except (ValueError, OverflowError) as error:
        if isinstance(error, HistoryError):
            raise
        raise HistoryError(
            f"{path}: not a readable history: {cut_text(str(error), MAX_CAUSE)}"
        ) from error
