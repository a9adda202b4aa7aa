"""Compare detectors on the same images, from saved files: which is better, and is it chance.

`python src/compare.py output/a_fold_0 output/b_fold_0` takes the best epoch and setting of each run
and compares the challenge's score and the numbers that papers quote, with paired intervals and
tests; `python src/compare.py a.csv b.csv --truth labels.csv` does it for submissions.

The best epoch and setting of a run were chosen on the images that it is compared on, so that its
score is a little too high; where more of them were tried for one run than for another, the
comparison favours that one.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import string
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

import config
from src.challenge.leaderboard import boxes_of_images, read_with_truth
from src.metric import image_scores
from src.scoring.bootstrap import SEED
from src.scoring.compared_runs import check_same_images, read_run
from src.scoring.comparison import (
    BOOTSTRAP,
    LEVEL,
    N_DRAWS,
    ComparedRun,
    Difference,
    ImageDifference,
    compare_images,
    compare_runs,
    explain_missing,
)
from src.scoring.quoted_numbers import count_cases
from src.scoring.scored_images import ScoredImages, best_scores
from src.system.command_line import CommandParser, between, positive, report_errors
from src.system.errors import InputError
from src.system.files import check_file_place, check_place, sha256_of, write_csv, write_json
from src.visualizations.picture_names import PICTURE_ENDING, picture_names

LETTERS = string.ascii_uppercase
MAX_DRAWS = 1_000_000
TABLE, IMAGES, FOREST, MADE_BY, GALLERY = (
    "comparison.csv",
    "images.csv",
    "forest.png",
    "compare.json",
    "gallery",
)
COLUMNS = ("number", "run_a", "run_b", "value_a", "value_b", "difference", "low", "high", "p",
           "p_holm", "test")  # fmt: skip
IMAGE_COLUMNS = ("patientId", "run_a", "run_b", "score_a", "score_b", "difference", "better")


@dataclass(frozen=True, eq=False)
class Contestant:
    """What is compared, by its letter, and which files it was taken from.

    Attributes:
        letter: for short.
        run: what was found.
        text: what of it is compared, for a reader.
        source: the same for a program.
    """

    letter: str
    run: ComparedRun
    text: str
    source: dict[str, Any]


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser("Compare detectors on the same images: which is better, and how sure.")
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="two or more folders of runs, or "
        "submissions (with --truth)")  # fmt: skip
    add("--out", type=Path, help="folder for the tables and the figure; default: "
        "output/compare/<names>")  # fmt: skip
    add("--draws", type=between(100, MAX_DRAWS), default=N_DRAWS, help="of patients, and swaps of "
        "outputs")  # fmt: skip
    add("--truth", type=Path, help="labels of the images of submissions")
    add("--truth-classes", type=Path, help="classes of the same images")
    add("--data-dir", type=Path, help="where the images of the gallery lie")
    add("--gallery", type=positive, metavar="N", help="draw the N images that differ most, of each "
        "pair; needs --data-dir")  # fmt: skip
    arguments = parser.parse_args()
    if not 2 <= len(arguments.runs) <= len(LETTERS):
        parser.error(f"{len(arguments.runs)} RUN given; 2 to {len(LETTERS)} can be compared")
    if arguments.truth is None and arguments.truth_classes is not None:
        parser.error("--truth-classes needs --truth")
    if (arguments.gallery is None) != (arguments.data_dir is None):
        parser.error("--gallery and --data-dir need each other")
    return arguments


def _is_submission(path: Path) -> bool:
    return path.is_file() or (path.suffix == ".csv" and not path.is_dir())


def _check_truth(arguments: argparse.Namespace) -> None:
    """Make sure that labels are given where they are needed, and only there."""
    submissions = [path for path in arguments.runs if _is_submission(path)]
    if submissions and arguments.truth is None:
        raise InputError(f"{submissions[0]}: no folder of a run; a submission needs --truth")
    if arguments.truth is not None and not submissions:
        raise InputError("--truth is for submissions, and no RUN is one: a run holds its own truth")


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        _check_truth(arguments)
        out = arguments.out
        if out is None:
            out = config.OUTPUT_DIR / "compare" / _folder_name(arguments.runs)
        for name in (TABLE, IMAGES, FOREST, MADE_BY):
            check_file_place(out / name)
        given = [
            _read(letter, path, arguments)
            for letter, path in zip(LETTERS, arguments.runs, strict=False)
        ]
        runs = [each.run for each in given]
        letters = [each.letter for each in given]
        check_same_images(runs)
        by_image = {
            (a, b): compare_images(runs[a], runs[b]) for a, b in combinations(range(len(runs)), 2)
        }
        if arguments.gallery is not None:
            _save_galleries(out / GALLERY, arguments, given, by_image)
        differences = compare_runs(runs, arguments.draws)
        notes = [*explain_missing(runs, letters), *_explain_draws(differences, arguments.draws)]
        _save(out, given, differences, by_image)
        write_json(out / MADE_BY, _made_by(arguments, given, differences, notes))
        figures = _save_figure(out / FOREST, arguments.runs, differences)
        print("\n".join(_describe(given, differences, by_image, notes)))
        print("", *(out / name for name in (TABLE, IMAGES, MADE_BY)), *figures, sep="\n")


def _read(letter: str, path: Path, arguments: argparse.Namespace) -> Contestant:
    """Read a run or a submission."""
    if _is_submission(path):
        run = _read_submission(path, arguments.truth, arguments.truth_classes)
        source: dict[str, Any] = {"submission": path, "sha256": sha256_of(path)}
        return Contestant(letter, run, f"{path}, all boxes that were submitted", source)
    read = read_run(path)
    predictions_path = path / "predictions" / f"{read.epoch:03}.npz"
    chosen = read.postprocess
    text = (
        f"{path}, epoch {read.epoch}, gate {chosen.gate} > {chosen.threshold:g}, NMS "
        f"{chosen.nms:g}, shrink {chosen.shrink:g} ({chosen.threshold_from})"
    )
    source = {
        "run": path,
        "predictions": predictions_path,
        "sha256": sha256_of(predictions_path),
        "epoch": read.epoch,
        "postprocess": asdict(chosen),
    }
    return Contestant(letter, read.run, text, source)


def _read_submission(path: Path, truth: Path, classes: Path | None) -> ComparedRun:
    submitted, records = read_with_truth(path, truth, classes)
    records = sorted(records, key=lambda record: record.patient_id)
    predicted, confidences, true = boxes_of_images(submitted, records)
    data = ScoredImages(
        ids=[record.patient_id for record in records],
        patients=np.arange(len(records)),
        predicted=predicted,
        scores=confidences,
        true=true,
        image_scores={"best box": best_scores(predicted, confidences)},
    )
    return ComparedRun(
        name=str(path),
        data=data,
        image_scores=image_scores(predicted, true),
        chosen=predicted,
        confidences=confidences,
        true=true,
        is_thresholded=True,
    )


def _folder_name(paths: Sequence[Path]) -> str:
    """Name the folder of a comparison after what is compared."""
    joined = "_vs_".join(path.resolve().name.removesuffix(".csv") for path in paths)
    return picture_names([joined.replace("/", "_")])[0].removesuffix(PICTURE_ENDING)


def _explain_draws(differences: Sequence[Difference], n_draws: int) -> Iterator[str]:
    """Say where so few draws and so many pairs leave no way to show a difference."""
    n_pairs = len({(each.run_a, each.run_b) for each in differences})
    if any(each.test == BOOTSTRAP for each in differences):
        least = 2 * n_pairs / (n_draws + 1)
        if least > LEVEL:
            yield (
                f"with {n_pairs} pairs and {n_draws} draws no corrected p value can be below "
                f"{least:.2g}; more --draws are needed to show a difference"
            )


def _describe(
    given: Sequence[Contestant],
    differences: Sequence[Difference],
    by_image: dict[tuple[int, int], list[ImageDifference]],
    notes: Sequence[str],
) -> Iterator[str]:
    """Write what came out as a short table for each pair."""
    for each in given:
        yield f"{each.letter}: {each.text}"
    yield ", ".join(f"{n} {what}" for what, n in count_cases(given[0].run.data).items()
                    if what != "predicted boxes")  # fmt: skip
    yield from notes
    corrected = " (corrected by Holm for the pairs)" if len(by_image) > 1 else ""
    for (a, b), images in by_image.items():
        first, second = given[a].letter, given[b].letter
        yield ""
        wins = [sum(row.better == side for row in images) for side in (1, -1, 0)]
        yield (
            f"{first} against {second}: by image {first} is better in {wins[0]}, {second} in "
            f"{wins[1]}, equal in {wins[2]}"
        )
        yield f"{'':30} {first:>8} {second:>8}  {'diff.':>8}  95 % of draws        p{corrected}"
        for row in differences:
            if (row.run_a, row.run_b) == (a, b):
                yield (
                    f"{row.number:30} {row.value_a:8.4f} {row.value_b:8.4f}  {row.difference:+8.4f}"
                    f"  {row.low:+.4f} to {row.high:+.4f}  {row.p_holm:.4f}  "
                    f"{row.verdict(first, second)}"
                )


def _save(
    out: Path,
    given: Sequence[Contestant],
    differences: Sequence[Difference],
    by_image: dict[tuple[int, int], list[ImageDifference]],
) -> None:
    """Write the table of numbers and that of images."""
    names = [each.run.name for each in given]
    rows = [
        (each.number, names[each.run_a], names[each.run_b],
         *(_as_text(value) for value in each[3:10]), each.test)
        for each in differences
    ]  # fmt: skip
    write_csv(out / TABLE, COLUMNS, rows)
    ids = given[0].run.data.ids
    image_rows = [
        (ids[row.image], names[a], names[b], _as_text(row.score_a), _as_text(row.score_b),
         _as_text(row.difference), ("", names[a], names[b])[row.better])
        for (a, b), rows_of_pair in by_image.items()
        for row in rows_of_pair
    ]  # fmt: skip
    write_csv(out / IMAGES, IMAGE_COLUMNS, image_rows)


def _save_figure(path: Path, runs: Sequence[Path], found: Sequence[Difference]) -> list[Path]:
    """Draw the differences, and return the paths of the figure."""
    from src.visualizations.figures import name_runs, save_figure  # matplotlib takes a second
    from src.visualizations.forest import plot_forest

    return save_figure(plot_forest(found, list(LETTERS), name_runs(runs)), path)


def _as_text(value: float) -> str:
    """Write a number for a table; an empty cell where it is undefined."""
    return "" if np.isnan(value) else f"{value:.6g}"


def _made_by(
    arguments: argparse.Namespace,
    given: Sequence[Contestant],
    differences: Sequence[Difference],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Say how the comparison was made."""
    tests = {each.number: each.test for each in differences}
    truth = None
    if arguments.truth is not None:
        truth = {"labels": arguments.truth, "sha256": sha256_of(arguments.truth)}
        truth |= {"classes": arguments.truth_classes}
    return {
        "command": ["src/compare.py", *sys.argv[1:]],
        "inputs": {each.letter: each.source for each in given},
        "truth": truth,
        "cases": count_cases(given[0].run.data),
        "draws": arguments.draws,
        "seed": SEED,
        "interval": "95 % of paired bootstrap draws of patients, not corrected for several pairs",
        "tests": tests,
        "level": LEVEL,
        "correction": "Holm, over the pairs of runs, for each number on its own",
        "notes": notes,
    }


def _save_galleries(
    folder: Path,
    arguments: argparse.Namespace,
    given: Sequence[Contestant],
    by_image: dict[tuple[int, int], list[ImageDifference]],
) -> None:
    """Draw the images of each pair that differ most."""
    from src.visualizations.comparison_gallery import find_images, save_gallery  # OpenCV

    check_place(folder)
    shown = {
        pair: [row for row in rows if row.difference][: arguments.gallery]
        for pair, rows in by_image.items()
    }
    ids = given[0].run.data.ids
    wanted = dict.fromkeys(ids[row.image] for rows in shown.values() for row in rows)
    images = find_images(arguments.data_dir, list(wanted))
    for (a, b), rows in shown.items():
        if rows:
            letters = given[a].letter, given[b].letter
            place = folder / "_".join(letters)
            save_gallery(place, images, (given[a].run, given[b].run), letters, rows)
            print(f"{len(rows)} pictures in {place}")


if __name__ == "__main__":
    main()
