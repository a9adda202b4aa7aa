from collections.abc import Sequence
from pathlib import Path

from src.datasets.annotations import Record


def data_fingerprint(records: Sequence[Record], images_dir: Path) -> str:
    return "TEMPORARY"
    return "TEMPORARY"
