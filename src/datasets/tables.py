"""CSV files about patients to tables of text, and rows that are wrong to errors in one line."""

from __future__ import annotations

from collections.abc import Hashable
from io import BytesIO
from pathlib import Path

import pandas as pd

from src.datasets.patient_ids import fault_of_patient_id
from src.system.csv_files import read_csv_bytes
from src.system.errors import InputError
from src.system.records import MAX_CAUSE, cut_text

SEPARATORS = {b";": "semicolons", b"\t": "tabs"}  # of spreadsheets in other languages


class AnnotationsError(InputError):
    """A file about patients that is missing or wrong; the message names file, row and cause."""


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a CSV as text; the row of index i is line i + 2 of the file.

    Blank lines are left out.

    Args:
        columns: that must be there, patientId among them; the others are read, too.

    Raises:
        AnnotationsError: this is no such table, or a patientId cannot be one.
    """
    if not path.exists():
        raise AnnotationsError(f"{path}: no such file")
    content = read_csv_bytes(path, AnnotationsError)
    _refuse_other_separators(path, content)
    try:
        table = pd.read_csv(
            BytesIO(content), dtype=str, keep_default_na=False, skip_blank_lines=False
        )
    except ValueError as error:
        cause = cut_text(str(error), MAX_CAUSE)
        raise AnnotationsError(f"{path}: not a readable CSV file: {cause}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise AnnotationsError(f"{path}: line 2: more cells than the header has columns")
    missing = [column for column in columns if column not in table]
    if missing:
        known = cut_text(", ".join(map(str, table.columns)), MAX_CAUSE)
        raise AnnotationsError(f"{path}: has no column {', '.join(missing)}; it has {known}")
    twice = [column for column in columns if f"{column}.1" in table]  # as pandas calls a second
    if twice:
        raise AnnotationsError(f"{path}: has two columns {twice[0]}; needs one")
    table = table.fillna("")
    table = table[(table != "").any(axis=1)]
    if len(table) == 0:
        raise AnnotationsError(f"{path}: has no rows")
    for row, patient in table["patientId"].items():
        fault = fault_of_patient_id(patient)
        if fault is not None:
            raise AnnotationsError(f"{path}: line {_line_of(row)}: {fault}")
    return table


def _refuse_other_separators(path: Path, content: bytes) -> None:
    header = content.split(b"\n", 1)[0]
    for separator, name in SEPARATORS.items():
        if separator in header and b"," not in header:
            raise AnnotationsError(
                f"{path}: the cells are separated by {name}; save it with commas between them"
            )


def read_sample_ids(path: Path) -> list[str]:
    """Read which patients a submission must hold, in the order of the sample submission.

    Raises:
        AnnotationsError: this is no sample submission, or it names a patient more than once.
    """
    table = read_table(path, ["patientId", "PredictionString"])
    refuse_rows(path, table, table.duplicated("patientId"), "patient {patientId} again")
    return table["patientId"].tolist()


def refuse_rows(path: Path, table: pd.DataFrame, bad: pd.Series, problem: str) -> None:
    """Raise for the first row of `read_table` where `bad`.

    Args:
        problem: may name columns in braces; their cells are cut where they are long.

    Raises:
        AnnotationsError: there is such a row.
    """
    if bad.any():
        first = int(bad.to_numpy().argmax())
        cells = {str(name): cut_text(str(value)) for name, value in table.iloc[first].items()}
        line = _line_of(table.index[first])
        raise AnnotationsError(f"{path}: line {line}: {problem.format_map(cells)}")


def _line_of(row: Hashable) -> int:
    """Return the line of the file: the index counts its rows, behind the header."""
    return int(str(row)) + 2
