"""Tables that sort images into groups, by view, sex or anything else."""

from __future__ import annotations

from pathlib import Path

from src.datasets.tables import AnnotationsError, read_table, refuse_rows
from src.system.records import cut_text

MAX_GROUPS = 50  # of a column
GroupTable = dict[str, dict[str, str]]  # column -> patientId -> the group


def read_groups(path: Path) -> GroupTable:
    """Read which group each image belongs to, for every column of a table but patientId.

    Raises:
        AnnotationsError: this is no such table, or a patient is there twice.
    """
    table = read_table(path, ["patientId"])
    refuse_rows(path, table, table.duplicated("patientId"), "patient {patientId} again")
    columns = [str(column) for column in table if column != "patientId"]
    if not columns:
        raise AnnotationsError(f"{path}: needs a column beside patientId, whose values are groups")
    for column in columns:
        n_groups = table[column].nunique()
        if n_groups > MAX_GROUPS:
            raise AnnotationsError(
                f"{path}: column {cut_text(column)} has {n_groups} values; at most {MAX_GROUPS} "
                f"can be groups, such as bands of a number"
            )
    return {column: dict(zip(table["patientId"], table[column], strict=True)) for column in columns}
