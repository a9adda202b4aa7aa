"""Kaggle's submission file: write it from predictions, check it, describe it; command line.

python src/submission.py write predictions.npz --out submission.csv --threshold 0.3
python src/submission.py check submission.csv --sample stage_2_sample_submission.csv
python src/submission.py stats submission.csv --data-dir data
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from src.errors import CommandParser, report_errors
from src.submission_format import (
    HEADER,
    IMAGE_SIZE,
    Fault,
    Submission,
    SubmissionError,
    parse_submission,
    show,
)

if TYPE_CHECKING:  # `--help` waits for nothing
    import numpy as np
    from numpy.typing import NDArray

    from src.predictions import Predictions


def prediction_strings(
    predictions: Predictions,
    *,
    threshold: float,
    nms: float,
    gate: str = "score",
    shrink: float = 1.0,
) -> dict[str, str]:
    """Write out the boxes of every image: `confidence x y width height` repeated.

    Args:
        threshold: a box counts when its gate (score x 5) is greater.
        nms: IoU over which a weaker box is dropped.
        gate: what meets the threshold; see `src.selection.gate_scores`.
        shrink: factor on each side of a box, about its centre, after the suppression.

    Returns:
        patientId -> string, empty for an image without boxes; pixels of the image's file.
    """
    from src.selection import select_boxes

    selected = select_boxes(predictions, threshold=threshold, nms=nms, gate=gate, shrink=shrink)
    return {
        str(predictions.ids[chosen.image]): _format(chosen.boxes_xyxy, chosen.scores)
        for chosen in selected
    }


def write_submission(path: Path, strings: Mapping[str, str], order: Iterable[str]) -> None:
    """Write a submission, whole or not at all.

    Args:
        strings: patientId -> PredictionString.
        order: the patients, as the rows shall follow.
    """
    from src.files import replaced_file

    with replaced_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((patient, strings[patient]) for patient in order)


def read_sample_ids(path: Path) -> list[str]:
    """Read the patients that a submission must hold, in their order.

    Raises:
        SubmissionError: the sample submission is missing or wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SubmissionError(f"{path}: cannot be read: {error}") from error
    if not rows or not set(HEADER) <= set(rows[0]):
        raise SubmissionError(f"{path}: needs rows with the columns {', '.join(HEADER)}")
    ids = [row[HEADER[0]] for row in rows]
    if len(set(ids)) < len(ids):
        twice = next(patient for patient, count in Counter(ids).items() if count > 1)
        raise SubmissionError(f"{path}: names patient {twice} more than once")
    return ids


def check_ids(found: Sequence[str], expected: Sequence[str], path: Path) -> None:
    """Compare the images at hand with those of the sample submission.

    Raises:
        SubmissionError: they are not the same; the first of each kind is named.
    """
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    for patients, what in ((missing, "have no image"), (extra, "are not listed there")):
        if patients:
            raise SubmissionError(
                f"{path}: {len(patients)} patients {what}, the first is {patients[0]}"
            )


def check_submission(
    path: Path, sample_path: Path | None = None, *, image_size: int = IMAGE_SIZE
) -> Submission:
    """Hold a submission against the form and the sample submission.

    Args:
        sample_path: whose patients the submission must have, in any order; None asks nothing.
        image_size: pixels along each side of every image.

    Returns:
        What could be read, with all faults in the order of the lines, missing rows last.

    Raises:
        SubmissionError: a file is missing, or the sample is wrong.
    """
    submission = parse_submission(path, image_size=image_size)
    if sample_path is not None:
        submission.faults += _compare_patients(submission, sample_path)
        submission.faults.sort(key=lambda fault: math.inf if fault.line is None else fault.line)
    return submission


def _compare_patients(submission: Submission, sample_path: Path) -> Iterator[Fault]:
    expected = read_sample_ids(sample_path)
    known = set(expected)
    for patient, line in submission.lines.items():
        if patient not in known:
            yield Fault(line, f"patient {show(patient)} is not in {sample_path}")
    for line, patient in enumerate(expected, start=2):
        if patient not in submission.lines:
            yield Fault(None, f"patient {patient} is missing, line {line} of {sample_path}")


def _format(boxes_xyxy: NDArray[np.float64], scores: NDArray[np.float32]) -> str:
    return " ".join(
        f"{score:.4f} {x:.1f} {y:.1f} {x2 - x:.1f} {y2 - y:.1f}"
        for (x, y, x2, y2), score in zip(boxes_xyxy, scores, strict=True)
    )


def _write(arguments: argparse.Namespace) -> None:
    from src.predictions import load_predictions
    from src.selection import GATES

    if arguments.gate not in GATES:
        raise SubmissionError(f"unknown gate {arguments.gate!r}; one of {', '.join(GATES)}")
    predictions = load_predictions(arguments.predictions)
    chosen = {name: getattr(arguments, name) for name in ("threshold", "nms", "gate", "shrink")}
    strings = prediction_strings(predictions, **chosen)
    order = list(strings)
    if arguments.sample is not None:
        order = read_sample_ids(arguments.sample)
        check_ids(list(strings), order, arguments.sample)
    write_submission(arguments.out, strings, order)
    n_with_boxes = sum(map(bool, strings.values()))
    print(f"{len(strings)} images, {n_with_boxes} with boxes\n{arguments.out}")


def _check(arguments: argparse.Namespace) -> None:
    path = arguments.submission
    submission = check_submission(path, arguments.sample, image_size=arguments.image_size)
    for fault in submission.faults:
        print(fault.describe(path))
    sys.stdout.flush()  # the verdict comes last
    n_faults, n_rows = len(submission.faults), len(submission.lines)
    if n_faults:
        raise SubmissionError(f"{path}: {n_faults} faults among {n_rows} images")
    n_boxes = sum(map(len, submission.boxes.values()))
    held = "the form" if arguments.sample is None else f"the form and {arguments.sample}"
    print(f"{path}: agrees with {held}: {n_rows} images, {n_boxes} boxes", file=sys.stderr)


def _stats(arguments: argparse.Namespace) -> None:
    from src.submission_stats import format_columns, submission_statistics, training_statistics

    columns = {arguments.submission.name: submission_statistics(arguments.submission)}
    if arguments.data_dir is not None:
        columns["training set"] = training_statistics(arguments.data_dir)
    print(*format_columns(columns), sep="\n")


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser("Write, check or describe a submission of the challenge.")
    actions = parser.add_subparsers(dest="action", required=True)

    write = actions.add_parser("write", help="make a submission from saved predictions")
    write.set_defaults(act=_write)
    add = write.add_argument
    add("predictions", type=Path, help="an .npz file from the folder predictions/ of a run")
    add("--out", type=Path, required=True, help="the submission, a CSV file")
    add("--threshold", type=float, required=True, help="a box counts when its gate is greater")
    add("--nms", type=_share, default=0.05, help="IoU over which the weaker of two boxes goes")
    add("--gate", default="score", help="what meets the threshold: score, score_category, "
        "sqrt_score_category")  # fmt: skip
    add("--shrink", type=_factor, default=1.0, help="factor on the boxes' sides; the second place "
        "took 0.875")  # fmt: skip
    add("--sample", type=Path, help="sample submission: its patients, in its order")

    check = actions.add_parser("check", help="list every fault of a submission")
    check.set_defaults(act=_check)
    check.add_argument("submission", type=Path, help="a CSV file")
    check.add_argument("--sample", type=Path, help="sample submission, for its patients")
    check.add_argument("--image-size", type=_pixels, default=IMAGE_SIZE, help="of each side")

    stats = actions.add_parser("stats", help="describe the boxes of a submission")
    stats.set_defaults(act=_stats)
    stats.add_argument("submission", type=Path, help="a CSV file")
    stats.add_argument("--data-dir", type=Path, help="show its training boxes beside")
    return parser.parse_args()


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _factor(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _pixels(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        arguments.act(arguments)


if __name__ == "__main__":
    main()
