"""What may be a patientId: one rule for labels, names of files, sample submissions, submissions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from src.system.records import show_value

DICOM_ENDING = ".dcm"
NOT_IN_FILE_NAMES = "\\\0"
NOT_IN_SUBMISSIONS = ',"'


def fault_of_patient_id(text: str) -> str | None:
    """Say why a text can be no patientId, None where it can.

    A patientId is the name of a file without its ending, or its path below the folder of images,
    and stands in a row of a submission, whose cells are written without quotation marks. Files and
    folders whose names begin with a dot are hidden and are no images.
    """
    if not text.strip():
        return "patientId is empty"
    shown = f"patientId {show_value(text)}"
    parts = text.split("/")
    is_path = all(part and not part.startswith(".") for part in parts)
    if not is_path or any(letter in text for letter in NOT_IN_FILE_NAMES):
        return f"{shown} cannot be the name of a file"
    if text != text.strip():
        return f"{shown} has spaces around it"
    if not text.isprintable():
        return f"{shown} holds a line break or another character that cannot be shown"
    if any(letter in text for letter in NOT_IN_SUBMISSIONS):
        return f"{shown} holds a comma or a quotation mark, which a submission cannot hold"
    return None


def fault_of_patient_ids(patients: Iterable[str]) -> str | None:
    """Say why images cannot be named by these patientIds in a submission, None where they can."""
    seen = set()
    for patient in patients:
        fault = fault_of_patient_id(patient)
        if fault is not None:
            return fault
        if patient in seen:
            return f"two images have the patientId {show_value(patient)}"
        seen.add(patient)
    return None


def patient_of_file(name: str) -> str:
    """Return the patientId of an image's file: the name of a DICOM file, without its ending.

    Args:
        name: path of the file, with POSIX separators.

    Returns:
        "" where the file is no patient's.
    """
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() == DICOM_ENDING else ""
