"""Compare detectors on the same images, from saved files: which is better, and is it chance.

`python src/compare.py output/a_fold_0 output/b_fold_0` takes the best epoch and setting of each run
and compares the challenge's score and the numbers that papers quote, with paired intervals and
tests; `output/a output/b` stand for all folds of each, and
`python src/compare.py a.csv b.csv --truth labels.csv` compares submissions.

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
import os
import string
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import config
from src.challenge.leaderboard import boxes_of_images, read_with_truth
from src.datasets.patient_groups import number_patients
from src.experiments.pretraining import note_on_rsna
from src.experiments.runs import read_description
from src.metric import image_scores
from src.scoring.bootstrap import SEED
from src.scoring.compared_runs import check_same_images, read_run
from src.scoring.comparison import (
    LEVEL,
    N_DRAWS,
    ComparedRun,
    Difference,
    compare_runs,
)
from src.scoring.comparison_texts import (
    COLUMNS,
    IMAGE_COLUMNS,
    ByPair,
    describe_pairs,
    explain_draws,
    explain_missing,
    image_rows,
    number_rows,
)
from src.scoring.image_differences import compare_images
from src.scoring.quoted_numbers import count_cases
from src.scoring.scored_images import scored_boxes
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


@dataclass(frozen=True, eq=False)
class Contestant:
    """What is compared, by its letter, and which files it was taken from.

    Attributes:
        letter: for short.
        run: what was found.
        text: what of it is compared, for a reader.
        source: the same for a program.
        was_chosen: as the best epoch and setting on the same images.
        has_seen_rsna: its network began with weights that were trained on RSNA's images.
    """

    letter: str
    run: ComparedRun
    text: str
    source: dict[str, Any]
    was_chosen: bool = False
    has_seen_rsna: bool = False


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser("Compare detectors on the same images: which is better, and how sure.")
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="two or more folders of runs, "
        "names without _fold_K for all folds of a run, or submissions (with --truth)")  # fmt: skip
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
        notes = [
            *_explain_choices(given),
            *explain_missing(runs, letters),
            *explain_draws(differences, arguments.draws),
        ]
        names = [run.name for run in runs]
        write_csv(out / TABLE, COLUMNS, number_rows(differences, names))
        write_csv(out / IMAGES, IMAGE_COLUMNS, image_rows(by_image, names, runs[0].data.ids))
        write_json(out / MADE_BY, _made_by(arguments, given, differences, notes))
        figures = _save_figure(out / FOREST, arguments.runs, differences)
        print(*(f"{each.letter}: {each.text}" for each in given), sep="\n")
        print(", ".join(f"{count} {what}" for what, count in _cases(given).items()))
        print(*notes, *describe_pairs(differences, by_image, letters), sep="\n")
        print("", *(out / name for name in (TABLE, IMAGES, MADE_BY)), *figures, sep="\n")


def _read(letter: str, path: Path, arguments: argparse.Namespace) -> Contestant:
    """Read a run or a submission."""
    if _is_submission(path):
        run = _read_submission(path, arguments.truth, arguments.truth_classes)
        source: dict[str, Any] = {"submission": path, "sha256": sha256_of(path)}
        return Contestant(letter, run, f"{path}, all boxes that were submitted", source)
    read = read_run(path)
    chosen = read.postprocess
    folds = f", {len(read.run_dirs)} folds" if len(read.run_dirs) > 1 else ""
    text = (
        f"{path}{folds}, epoch {read.epoch}, gate {chosen.gate} > {chosen.threshold:g}, NMS "
        f"{chosen.nms:g}, shrink {chosen.shrink:g} ({chosen.threshold_from})"
    )
    source = {
        "run": path,
        "predictions": [
            {"file": file, "sha256": sha256_of(file)} for file in read.predictions_paths
        ],
        "epoch": read.epoch,
        "postprocess": asdict(chosen),
    }
    descriptions = [read_description(run_dir / "experiment.json") for run_dir in read.run_dirs]
    notice = max(map(note_on_rsna, descriptions))
    source["has_seen_rsna_images"] = bool(notice)
    return Contestant(
        letter,
        read.run,
        f"{text}, {notice}" if notice else text,
        source,
        was_chosen=not chosen.threshold_is_open,
        has_seen_rsna=bool(notice),
    )


def _read_submission(path: Path, truth: Path, classes: Path | None) -> ComparedRun:
    submitted, records = read_with_truth(path, truth, classes)
    records = sorted(records, key=lambda record: record.patient_id)
    predicted, confidences, true = boxes_of_images(submitted, records)
    ids = [record.patient_id for record in records]
    patients = number_patients([record.group_id for record in records])
    return ComparedRun(
        name=str(path),
        data=scored_boxes(ids, patients, predicted, confidences, true),
        image_scores=image_scores(predicted, true),
        chosen=predicted,
        confidences=confidences,
        true=true,
        is_thresholded=True,
    )


def _folder_name(paths: Sequence[Path]) -> str:
    """Name the folder of a comparison after what is compared, below the folder that all share."""
    resolved = [path.resolve() for path in paths]
    shared = os.path.commonpath([path.parent for path in resolved])
    names = [str(path.relative_to(shared)).removesuffix(".csv") for path in resolved]
    joined = "_vs_".join(names)
    return picture_names([joined.replace("/", "_")])[0].removesuffix(PICTURE_ENDING)


def _save_figure(path: Path, runs: Sequence[Path], found: Sequence[Difference]) -> list[Path]:
    """Draw the differences, and return the paths of the figure."""
    from src.visualizations.figures import name_runs, save_figure  # matplotlib takes a second
    from src.visualizations.forest import plot_forest

    return save_figure(plot_forest(found, list(LETTERS), name_runs(runs)), path)


def _cases(given: Sequence[Contestant]) -> dict[str, int]:
    """Count what is the same for all: images, patients, true boxes."""
    counts = count_cases(given[0].run.data)
    return {what: count for what, count in counts.items() if what != "predicted boxes"}


def _explain_choices(given: Sequence[Contestant]) -> Iterator[str]:
    """Say whose settings, or first weights, come from the images that they are compared on."""
    chosen = [each.letter for each in given if each.was_chosen]
    if chosen:
        yield (
            f"{', '.join(chosen)}: epoch and setting are the best of those that were tried on "
            f"these images, which favours a run for which more were tried"
        )
    seen = [each.letter for each in given if each.has_seen_rsna]
    if seen:
        yield (
            f"{', '.join(seen)}: pretrained on images of RSNA, perhaps on these, which favours it "
            f"over a run that was not"
        )


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
        "cases": _cases(given),
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
    by_image: ByPair,
) -> None:
    """Draw the images of each pair that differ most, in place of those of earlier galleries."""
    # OpenCV takes a while to import.
    from src.visualizations.comparison_gallery import find_images, remove_galleries, save_gallery

    check_place(folder)
    shown = {
        pair: [row for row in rows if row.difference][: arguments.gallery]
        for pair, rows in by_image.items()
    }
    ids = given[0].run.data.ids
    wanted = dict.fromkeys(ids[row.image] for rows in shown.values() for row in rows)
    images = find_images(arguments.data_dir, list(wanted))
    remove_galleries(folder)
    for (a, b), rows in shown.items():
        if rows:
            letters = given[a].letter, given[b].letter
            place = folder / "_".join(letters)
            save_gallery(place, images, (given[a].run, given[b].run), letters, rows)
            print(f"{len(rows)} pictures in {place}")


if __name__ == "__main__":
    main()
