"""A submission held against the form and against the patients that it must hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.challenge.submission_file import (
    Fault,
    Size,
    SizeOf,
    Submission,
    SubmissionError,
    parse_submission,
)
from src.datasets.box_sizes import CHALLENGE_SIZE
from src.datasets.data_folder import DataFolder, open_image_folder
from src.datasets.tables import AnnotationsError, read_sample_ids
from src.system.records import cut_text, show_value


def check_ids(found: Sequence[str], expected: Sequence[str], path: Path) -> None:
    """Compare the images at hand with those of the sample submission.

    Raises:
        SubmissionError: they are not the same; the first of each kind is named.
    """
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    for patients, what in ((missing, "have no image"), (extra, "are not listed there")):
        if patients:
            raise SubmissionError(
                f"{path}: {len(patients)} patients {what}, the first is {cut_text(patients[0])}"
            )


def check_submission(
    path: Path, sample_path: Path | None = None, *, size_of: SizeOf = lambda patient: CHALLENGE_SIZE
) -> Submission:
    """Hold a submission against the form and the sample submission.

    Args:
        sample_path: whose patients the submission must have, in any order; None asks nothing.
        size_of: gives the height and width of a patient's image, pixels; None where it is unknown.

    Returns:
        What could be read, with all faults in the order of the lines, missing rows last.

    Raises:
        SubmissionError: the submission is missing.
        AnnotationsError: the sample submission is missing or wrong.
    """
    submission = parse_submission(path, size_of=size_of)
    if sample_path is not None:
        submission.faults += _compare_patients(submission, sample_path)
        submission.faults.sort(key=lambda fault: math.inf if fault.line is None else fault.line)
    return submission


def read_image_sizes(data_dir: Path, patient_ids: Sequence[str]) -> dict[str, Size]:
    """Read the sizes of images of a data folder, of the test images and of the labelled ones.

    Returns:
        patientId -> height and width, pixels, of those that have an image.

    Raises:
        InputError: there are no images of these patients, or one of them gives no radiograph.
    """
    folder = DataFolder(data_dir)
    sizes: dict[str, Size] = {}
    for split in ("test", "train"):
        if folder.has_images(split):
            images = open_image_folder(folder.images_dir(split), patient_ids, needs_all=False)
            known = [patient for patient in images.names if patient not in sizes]
            sizes |= zip(known, images.read_sizes(known), strict=True)
    if not sizes:
        raise AnnotationsError(f"{data_dir}: holds no images of the submission's patients")
    return sizes


def _compare_patients(submission: Submission, sample_path: Path) -> Iterator[Fault]:
    expected = read_sample_ids(sample_path)
    known = set(expected)
    for patient, line in submission.lines.items():
        if patient not in known:
            yield Fault(line, f"patient {show_value(patient)} is not in {sample_path}")
    for line, patient in enumerate(expected, start=2):
        if patient not in submission.lines:
            yield Fault(
                None, f"patient {cut_text(patient)} is missing, line {line} of {sample_path}"
            )
