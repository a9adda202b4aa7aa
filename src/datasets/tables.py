"""CSV files about patients to tables of text, and rows that are wrong to errors in one line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from src.system.errors import InputError


class AnnotationsError(InputError):
    """A file about patients that is missing or wrong; the message names file, row and cause."""


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a CSV as text; the row of index i is line i + 2 of the file.

    Blank lines are left out.

    Args:
        columns: that must be there, patientId among them; the others are read, too.

    Raises:
        AnnotationsError: this is no such table, or a patientId cannot be the name of a file.
    """
    if not path.is_file():
        raise AnnotationsError(f"{path}: no such file")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise AnnotationsError(f"{path}: not a readable CSV file: {error}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise AnnotationsError(f"{path}: line 2: more cells than the header has columns")
    missing = [column for column in columns if column not in table]
    if missing:
        raise AnnotationsError(
            f"{path}: has no column {', '.join(missing)}; needs {', '.join(columns)}"
        )
    twice = [column for column in columns if f"{column}.1" in table]  # as pandas calls a second
    if twice:
        raise AnnotationsError(f"{path}: has two columns {twice[0]}; needs one")
    table = table.fillna("")
    table = table[(table != "").any(axis=1)]
    if len(table) == 0:
        raise AnnotationsError(f"{path}: has no rows")
    refuse_rows(path, table, table["patientId"].str.strip() == "", "patientId is empty")
    bad_name = table["patientId"].str.contains(r"[/\\\0]|^\.")
    refuse_rows(path, table, bad_name, "patientId {patientId!r} cannot be the name of a file")
    return table


def refuse_rows(path: Path, table: pd.DataFrame, bad: pd.Series, problem: str) -> None:
    """Raise for the first row of `read_table` where `bad`.

    Args:
        problem: may name columns in braces.

    Raises:
        AnnotationsError: there is such a row.
    """
    if bad.any():
        first = int(bad.to_numpy().argmax())
        cells = {str(name): value for name, value in table.iloc[first].items()}
        line = int(table.index[first]) + 2  # the index counts rows of the file, behind its header
        raise AnnotationsError(f"{path}: line {line}: {problem.format_map(cells)}")
