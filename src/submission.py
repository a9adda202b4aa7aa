"""Kaggle's submission file: write it from predictions, check it, describe it; command line.

python src/submission.py write predictions.npz --out submission.csv --postprocess second-place
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
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from src.arguments import add_postprocess_flags, postprocess_flags
from src.errors import CommandParser, report_errors
from src.flag_values import positive
from src.presets import Postprocess, choose_postprocess
from src.submission_check import check_ids, check_submission, read_sample_ids
from src.submission_format import HEADER, IMAGE_SIZE, SubmissionError

if TYPE_CHECKING:  # `--help` waits for nothing
    import numpy as np
    from numpy.typing import NDArray

    from src.predictions import Predictions


def prediction_strings(predictions: Predictions, settings: Postprocess) -> dict[str, str]:
    """Write out the boxes of every image that count: `confidence x y width height` repeated.

    Returns:
        patientId -> string, empty for an image without boxes; pixels of the image's file.
    """
    from src.selection import select_boxes

    return {
        str(predictions.ids[image]): _format(predictions.in_file_pixels(image, boxes), scores)
        for image, boxes, scores in select_boxes(predictions, settings)
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


def save_submission(
    path: Path,
    predictions: Predictions,
    predictions_path: Path,
    settings: Postprocess,
    *,
    sample_path: Path | None = None,
) -> int:
    """Write the submission of some predictions, and beside it (.json) where it comes from.

    Args:
        predictions_path: their file.
        sample_path: a sample submission, for the order of the rows.

    Returns:
        How many images have boxes.

    Raises:
        SubmissionError: the sample is wrong, or names other patients.
    """
    from src.provenance import write_provenance

    strings = prediction_strings(predictions, settings)
    order = list(strings)
    if sample_path is not None:
        order = read_sample_ids(sample_path)
        check_ids(list(strings), order, sample_path)
    write_submission(path, strings, order)
    write_provenance(path, predictions, predictions_path, settings)
    return sum(map(bool, strings.values()))


def _format(boxes_xyxy: NDArray[np.float64], scores: NDArray[np.float32]) -> str:
    return " ".join(
        f"{score:.4f} {x:.1f} {y:.1f} {x2 - x:.1f} {y2 - y:.1f}"
        for (x, y, x2, y2), score in zip(boxes_xyxy, scores, strict=True)
    )


def _write(arguments: argparse.Namespace) -> None:
    from src.predictions import load_predictions

    path = arguments.predictions
    if arguments.out.suffix == ".json":  # the name of what is written beside
        raise SubmissionError(f"{arguments.out}: a submission is a CSV file")
    predictions = load_predictions(path)
    settings = _settings(arguments, predictions)
    n_with_boxes = save_submission(
        arguments.out, predictions, path, settings, sample_path=arguments.sample
    )
    print(f"{len(predictions)} images, {n_with_boxes} with boxes\n{arguments.out}")


def _settings(arguments: argparse.Namespace, predictions: Predictions) -> Postprocess:
    """Join the flags with how the sizes were combined when the images were predicted."""
    from src.provenance import stored_sizes

    settings = choose_postprocess(
        arguments.postprocess,
        postprocess_flags(arguments) | stored_sizes(predictions.header),
        combines="ensemble" in predictions.header,
    )
    if settings.threshold_is_open:
        raise SubmissionError(
            f"--postprocess {settings.preset} takes the threshold from check_metric: "
            f"say it here by --threshold"
        )
    return settings


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
    add_postprocess_flags(write)
    add("--sample", type=Path, help="sample submission: its patients, in its order")

    check = actions.add_parser("check", help="list every fault of a submission")
    check.set_defaults(act=_check)
    check.add_argument("submission", type=Path, help="a CSV file")
    check.add_argument("--sample", type=Path, help="sample submission, for its patients")
    check.add_argument("--image-size", type=positive, default=IMAGE_SIZE, help="of each side")

    stats = actions.add_parser("stats", help="describe the boxes of a submission")
    stats.set_defaults(act=_stats)
    stats.add_argument("submission", type=Path, help="a CSV file")
    stats.add_argument("--data-dir", type=Path, help="show its training boxes beside")
    return parser.parse_args()


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        arguments.act(arguments)


if __name__ == "__main__":
    main()
