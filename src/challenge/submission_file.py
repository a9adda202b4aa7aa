"""The form of Kaggle's submission file: what a file says, and every departure from the form.

A header, then a row for each image: `patientId,` and for each box `confidence x y width height`,
all numbers separated by one space; nothing after the comma where there is no box. Boxes are in
pixels of the image's file. Nothing here needs more than the standard library.
"""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from src.system.errors import InputError
from src.system.files import read_bytes
from src.system.records import cut_text, show_value

HEADER = ("patientId", "PredictionString")
ROUNDING = 0.1  # pixels that a right or lower edge may gain: x and width have one decimal each
SLACK = 1e-6  # of floating-point sums
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_BYTES = 2**28  # of a file; 3,000 images with a hundred boxes each take a thirtieth


class SubmissionError(InputError):
    """A submission, or a sample submission, that is missing or wrong."""


class SubmittedBox(NamedTuple):
    """One box; x, y, width and height in pixels of the image's file."""

    confidence: float
    x: float
    y: float
    width: float
    height: float


N_FIELDS = len(SubmittedBox._fields)
Size = tuple[int, int]  # height and width of an image, pixels
SizeOf = Callable[[str], Size | None]
Problem = tuple[str, bool]  # what is wrong in a row, and whether it is fatal


@dataclass(frozen=True)
class Fault:
    """A departure from the form.

    Attributes:
        line: of the file, from 1; None where a row is missing.
        is_fatal: the row cannot be understood; otherwise there is no doubt what it means.
    """

    line: int | None
    problem: str
    is_fatal: bool = True

    def describe(self, path: Path) -> str:
        """Return one line of text."""
        place = f"{path}" if self.line is None else f"{path}: line {self.line}"
        return f"{place}: {self.problem}"


@dataclass
class Submission:
    """What could be read of a submission.

    Attributes:
        boxes: patientId -> boxes in the order of the file, of the rows without a fatal fault.
        lines: patientId -> line, of all rows whose patient can be told; the first of equal ones.
        faults: in the order of the lines.
    """

    boxes: dict[str, list[SubmittedBox]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def parse_submission(path: Path, *, size_of: SizeOf = lambda patient: None) -> Submission:
    """Read what can be read of a submission, and collect all that is wrong with it.

    Args:
        size_of: gives the height and width of a patient's image, pixels; a box that leaves it is a
            fault. None asks nothing.

    Raises:
        SubmissionError: there is no such file, or it is a device, or too large.
    """
    content = read_bytes(path, MAX_BYTES, SubmissionError)
    submission = Submission()
    faults = submission.faults
    if content.startswith(BYTE_ORDER_MARK):
        content = content.removeprefix(BYTE_ORDER_MARK)
        faults.append(Fault(1, "starts with a byte order mark; UTF-8 needs none", is_fatal=False))
    lines = [line.removesuffix(b"\r") for line in content.removesuffix(b"\n").split(b"\n")]
    faults += _check_header(lines[0])
    for number, line in enumerate(lines[1:], start=2):
        faults += [
            Fault(number, *problem) for problem in _parse_line(submission, number, line, size_of)
        ]
    if not submission.lines:
        faults.append(Fault(None, "has no rows"))
    return submission


def read_submission(path: Path) -> dict[str, list[SubmittedBox]]:
    """Read a submission that is to be used.

    What leaves no doubt is taken, with one warning: spaces too many, quotation marks, a confidence
    above 1. Kaggle scored many such files. Where a box lies is not asked.

    Returns:
        patientId -> boxes, both in the order of the file.

    Raises:
        SubmissionError: missing, or a row cannot be understood; the first such line is named.
    """
    submission = parse_submission(path)
    fatal = [fault for fault in submission.faults if fault.is_fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more faults)" if len(fatal) > 1 else ""
        raise SubmissionError(f"{fatal[0].describe(path)}{more}")
    if submission.faults:
        n_faults = len(submission.faults)
        more = f"of {n_faults} departures from the form the first; `submission.py check` lists them"
        warnings.warn(f"{submission.faults[0].describe(path)} ({more})", stacklevel=2)
    return submission.boxes


def _check_header(line: bytes) -> Iterator[Fault]:
    text, expected = line.decode(errors="backslashreplace"), ",".join(HEADER)
    if text != expected:
        means_the_same = re.sub(r'["\s]', "", text) == expected
        problem = f"the header is {show_value(text)}, not {expected!r}"
        yield Fault(1, problem, is_fatal=not means_the_same)


def _parse_line(
    submission: Submission, number: int, line: bytes, size_of: SizeOf
) -> Iterator[Problem]:
    """Put one row into `submission`, unless it cannot be understood; yield what is wrong."""
    text = line.decode(errors="replace")
    if not text.strip():
        yield "an empty line", False
        return
    cells, problems = _split_cells(text)
    is_split = not any(is_fatal for _, is_fatal in problems)
    try:
        line.decode()
    except UnicodeDecodeError as error:
        problems.append((f"not UTF-8: byte 0x{line[error.start]:02x}", True))
    patient = cells[0].strip()
    if patient != cells[0]:
        problems.append(("spaces around the patientId", False))
    if not patient or not patient.isprintable():
        problems.append((f"{show_value(patient)} is no patientId", True))
    first = submission.lines.setdefault(patient, number)
    if first != number:
        problems.append((f"patient {cut_text(patient)} again, after line {first}", True))
    boxes, more = _parse_boxes(cells[1], size_of(patient)) if is_split else ([], [])
    problems += more
    if not any(is_fatal for _, is_fatal in problems):
        submission.boxes[patient] = boxes
    yield from problems


def _split_cells(text: str) -> tuple[list[str], list[Problem]]:
    """Split a row at its comma: its cells, which should be two, and its problems."""
    problems = []
    cells = text.split(",")
    if '"' in text:
        problems.append(("quotation marks; both cells are written without", False))
        try:
            cells = next(csv.reader([text], strict=True))
        except csv.Error as error:
            problems.append((f"a quotation mark without its partner: {error}", True))
    if len(cells) > 2:
        problem = f"{len(cells) - 1} commas, not 1; single spaces separate the numbers"
        problems.append((problem, True))
    elif len(cells) < 2:
        separator = re.search(r"[;|\s]", text.strip())
        if separator:
            problem = f"no comma after the patientId, but {separator.group()!r}"
            cells = [text.strip()[: separator.start()]]
        else:
            problem = (
                f"nothing after the patientId; without boxes the row is {show_value(text + ',')}"
            )
        problems.append((problem, True))
    return cells, problems


def _parse_boxes(text: str, size: Size | None) -> tuple[list[SubmittedBox], list[Problem]]:
    """Read a PredictionString: its boxes, and its problems."""
    words = text.split()
    problems = [(problem, False) for problem in _space_problems(text, words)]
    for place, word in enumerate(words, start=1):
        if not NUMBER.fullmatch(word) or not math.isfinite(float(word)):
            problems.append((f"number {place}, {show_value(word)}, is not a finite number", True))
    if len(words) % N_FIELDS:
        names = " ".join(SubmittedBox._fields)
        problems.append((f"{len(words)} numbers, not {N_FIELDS} for each box ({names})", True))
    if any(is_fatal for _, is_fatal in problems):
        return [], problems
    values = list(map(float, words))
    boxes = [SubmittedBox(*values[i : i + N_FIELDS]) for i in range(0, len(values), N_FIELDS)]
    for i, box in enumerate(boxes, start=1):
        problems += [(f"box {i}: {problem}", False) for problem in _box_problems(box, size)]
    return boxes, problems


def _space_problems(text: str, words: list[str]) -> Iterator[str]:
    if text and not words:
        yield "spaces after the comma, where a row without boxes has nothing"
        return
    if text != text.strip():
        yield "a space at the start or the end of the PredictionString"
    if text.strip() != " ".join(words):
        yield "numbers separated by more than one space, or by something else"


def _box_problems(box: SubmittedBox, size: Size | None) -> Iterator[str]:
    if not 0 <= box.confidence <= 1:
        yield f"confidence {box.confidence:g} is not between 0 and 1"
    height, width = size or (math.inf, math.inf)
    for start, length, side in (("x", "width", width), ("y", "height", height)):
        begin, extent = getattr(box, start), getattr(box, length)
        if extent <= 0:
            yield f"{length} {extent:g} is not positive"
        elif size is not None and not (begin >= 0 and begin + extent <= side + ROUNDING + SLACK):
            yield f"outside the image: {start} {begin:g}, {length} {extent:g}, of {side}"
