"""Which images are of one patient: a column of folds.csv or of the label files.

The challenge calls an image by its patientId, for each patient has one. Where patients have several
images, another column says whose they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.datasets.data_folder import DataFolder
from src.datasets.tables import AnnotationsError, read_table, refuse_rows
from src.system.records import show_value

GROUP_COLUMN = "groupId"


def read_groups(folder: DataFolder, column: str | None = None) -> dict[str, str]:
    """Read which images belong together from folds.csv, else the labels, else the class file.

    Args:
        column: that says it; None takes `GROUP_COLUMN` where there is one.

    Returns:
        patientId -> group, "" for none; empty where no file has the column.

    Raises:
        AnnotationsError: no file has the named column, or an image is in two groups.
    """
    paths = (folder.folds_path, folder.labels_path, folder.classes_path)
    groups = read_group_column(filter(Path.exists, paths), column or GROUP_COLUMN)
    if column is not None and not groups:
        raise AnnotationsError(
            f"{folder.root}: neither labels nor class file has a column {show_value(column)}"
        )
    return groups


def read_group_column(paths: Iterable[Path], column: str = GROUP_COLUMN) -> dict[str, str]:
    """Read the groups of images from the first of some tables that has the column.

    Returns:
        patientId -> group, "" for none; empty where no table has the column.

    Raises:
        AnnotationsError: a table is missing or wrong, or an image is in two groups.
    """
    for path in paths:
        table = read_table(path, ["patientId"])
        if column in table:
            pairs = table[["patientId", column]].drop_duplicates()
            repeated = pairs.duplicated("patientId")
            refuse_rows(path, pairs, repeated, f"patient {{patientId}} has a second {column}")
            return dict(zip(pairs["patientId"], pairs[column].str.strip(), strict=True))
    return {}


def number_patients(group_ids: ArrayLike) -> NDArray[np.int64]:
    """Number the patients of images.

    Args:
        group_ids: (I,) texts, "" for an image that is alone.

    Returns:
        (I,) equal where two images are of one patient.
    """
    groups = np.asarray(group_ids, dtype=str)
    names, patients = np.unique(groups, return_inverse=True)
    return np.where(groups == "", len(names) + np.arange(len(groups)), patients)
