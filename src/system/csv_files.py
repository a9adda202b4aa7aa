"""CSV files within bounds: pandas makes a cell for every column of every row, however short."""

from __future__ import annotations

import csv
from io import StringIO
from itertools import islice
from pathlib import Path

from src.system.errors import InputError
from src.system.files import MAX_TABLE_BYTES, read_bytes
from src.system.records import MAX_CAUSE, cut_text

MAX_COLUMNS = 1000  # pandas compares the names of all with one another
MAX_HEAD_BYTES = 2**20  # of the first two records, which tell pandas the number of columns
MAX_EMPTY_CELLS = 10_000_000  # that rows may lack, beside one cell for each byte of the file


def read_csv_bytes(path: Path, error: type[InputError]) -> bytes:
    """Read a CSV file whose cells are separated by commas, for pandas.

    Raises:
        error: the file is missing, too large, or would become a table much larger than itself.
    """
    content = read_bytes(path, MAX_TABLE_BYTES, error)
    check_shape(path, content, error)
    return content


def check_shape(path: Path, content: bytes, error: type[InputError], separator: str = ",") -> None:
    """Compare the columns and lines of a CSV file with its size.

    Args:
        content: the file's bytes.

    Raises:
        error: there are too many columns, or most cells are missing.
    """
    head = StringIO(content[:MAX_HEAD_BYTES].decode("utf-8-sig", errors="replace"), newline="")
    n_rows = content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n")
    max_cells = max(len(content), MAX_EMPTY_CELLS)
    try:
        n_columns = max((len(row) for row in islice(csv.reader(head, delimiter=separator), 2)),
                        default=0)  # fmt: skip
        if n_columns * n_rows > max_cells:  # cells may have several lines
            text = StringIO(content.decode("utf-8-sig", errors="replace"), newline="")
            n_rows = sum(1 for _ in csv.reader(text, delimiter=separator))
    except csv.Error as failure:
        cause = cut_text(str(failure), MAX_CAUSE)
        raise error(f"{path}: not a readable CSV file: {cause}") from failure
    if n_columns > MAX_COLUMNS:
        raise error(f"{path}: {n_columns} columns; at most {MAX_COLUMNS} are read")
    if len(content) > MAX_HEAD_BYTES and not head.read(1):
        raise error(f"{path}: its first two lines have more than {MAX_HEAD_BYTES} bytes")
    if n_columns * n_rows > max_cells:
        raise error(
            f"{path}: {n_rows} rows of {n_columns} columns in {len(content)} bytes: most cells "
            f"are missing"
        )
