"""The headers of a tree of DICOM files, read in several processes, without the pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.datasets.patient_ids import fault_of_patient_id
from src.system.errors import InputError
from src.system.files import read_bytes
from src.system.processes import map_files
from src.system.records import show_value

HEADER_TAGS = ["SOPInstanceUID", "PatientID", "Rows", "Columns"]


@dataclass(frozen=True)
class Header:
    """What is needed of a DICOM file's header."""

    path: Path
    patient_id: str
    sop_uid: str
    rows: int
    columns: int


def find_images(images_dir: Path) -> list[Path]:
    """List the .dcm files below a folder, sorted.

    Raises:
        InputError: there are none.
    """
    if not images_dir.is_dir():
        raise InputError(f"{images_dir}: no such folder of images")
    paths = sorted(path for path in images_dir.rglob("*") if path.suffix.lower() == ".dcm")
    if not paths:
        raise InputError(f"{images_dir}: holds no .dcm files, nor do its folders")
    return paths


def read_headers(paths: Sequence[Path], n_workers: int) -> Iterator[Header | str]:
    """Read headers, without pixels, and show how far it is.

    Yields:
        A header for each path, in order, or what is wrong with the file.
    """
    from tqdm import tqdm

    with tqdm(total=len(paths), desc="headers", unit="file") as bar:
        for header in map_files(read_header, paths, n_workers=n_workers):
            bar.update()
            yield header


def read_header(path: Path) -> Header | str:
    """Read one header, or say what is wrong with the file."""
    from src.radiographs.dicom_elements import MAX_BYTES, read_elements

    try:
        with warnings.catch_warnings(record=True):  # odd values of other tags do not matter here
            dataset = read_elements(read_bytes(path, MAX_BYTES, InputError), with_pixels=False)
            uid, patient = (str(dataset.get(tag) or "").strip() for tag in HEADER_TAGS[:2])
            rows, columns = (int(dataset.get(tag) or 0) for tag in HEADER_TAGS[2:])
    except InputError as error:
        return str(error)
    except Exception as error:  # a broken file makes pydicom raise nearly anything
        return f"{path}: {' '.join(str(error).split()) or type(error).__name__}"
    if not uid or not patient:
        return f"{path}: has no {' and no '.join(HEADER_TAGS[:2])}"
    if "/" in patient or fault_of_patient_id(patient) is not None:
        return f"{path}: PatientID {show_value(patient)} cannot be the name of a file"
    return Header(path.resolve(), patient, uid, rows, columns)
