"""Which data it was: a fingerprint of labels and image files that is the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from src.datasets.annotations import Record
from src.datasets.data_folder import StoredImages


class FileState(NamedTuple):
    """What tells an image file from one that took its place, without opening it.

    Attributes:
        size: bytes.
        modified: nanoseconds. Archives keep it, so that data unpacked again counts as the same;
            a file that was replaced with its size and its date kept goes unseen.
    """

    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


def image_states(patient_ids: Iterable[str], source: StoredImages) -> dict[str, FileState]:
    """Look at the images of some patients, in their order.

    Raises:
        AnnotationsError: one is missing.
    """
    return {patient: FileState.of(source.image_path(patient)) for patient in patient_ids}


def images_fingerprint(states: Mapping[str, FileState]) -> str:
    """Return the SHA-256 of the names and sizes of image files, whatever their order."""
    return _digest(f"{patient}\t{states[patient].size}" for patient in sorted(states))


def data_fingerprint(records: Sequence[Record], source: StoredImages) -> str:
    """Return the SHA-256 of labels, and of the names and sizes of the images, in hexadecimal.

    It is a second's work for the challenge: no image is opened. The order of the records, their
    folds and the files' dates do not matter.

    Raises:
        AnnotationsError: an image is missing.
    """
    states = image_states([record.patient_id for record in records], source)
    labels = (
        f"{record.patient_id}\t{record.category}\t{record.boxes_xywh.tolist()}"
        for record in sorted(records, key=lambda record: record.patient_id)
    )
    return _digest([*labels, images_fingerprint(states)])


def split_fingerprint(train: Sequence[Record], valid: Sequence[Record]) -> str:
    """Return the SHA-256 of which images are trained on and which are held out, in hexadecimal.

    Their order, their labels and their files do not matter.
    """
    parts = {"train": train, "valid": valid}
    return _digest(sorted(f"{name}\t{each.patient_id}" for name in parts for each in parts[name]))


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
