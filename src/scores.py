"""Sweep score and NMS thresholds over saved predictions; no model is needed.

As a command: `python src/scores.py output/demo_fold_0 ...` scores every saved epoch of the runs at
every combination of settings, and writes sweep.csv and sweep.npz into each run's folder;
`python src/scores.py submission.csv --truth labels.csv` is the challenge's leaderboard offline.
`--numbers` adds what papers quote: average precision, FROC, AUROC, with intervals; `--groups` the
same for parts of the images.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

from src.actions.ensemble_flags import describe_ensemble, flags_of_ensemble
from src.challenge.leaderboard import boxes_of_images, read_with_truth, score_boxes
from src.experiments.runs import Run
from src.metric import bootstrap_interval, image_scores
from src.prediction.image_groups import GroupTable, read_groups
from src.prediction.image_scores import read_image_scores, with_image_scores
from src.prediction.postprocess import choose_boxes
from src.prediction.presets import GATES
from src.prediction.saved_epochs import LoadEpoch, load_epoch
from src.scoring.grid import (
    NMS_GRID,
    SCORE_THRESHOLDS,
    SHRINK_GRID,
    Grid,
    sweep_pooled,
    sweep_run,
)
from src.scoring.honest import honest_score
from src.scoring.number_tables import (
    describe_groups,
    describe_numbers,
    write_group_numbers,
    write_numbers,
)
from src.scoring.quoted_numbers import compute_numbers
from src.scoring.scored_images import scored_boxes, scored_predictions
from src.scoring.subgroups import group_numbers
from src.scoring.sweep import AXES, NEAR_BEST, BestSetting, ScoredRun, Sweep
from src.structures import MAX_FOLDS, N_FOLDS
from src.system.command_line import (
    CommandParser,
    between,
    factor,
    fraction,
    natural,
    number,
    report_errors,
)
from src.system.files import check_file_place

SWEEP, NUMBERS, GROUPS = "sweep.npz", "numbers.csv", "groups.csv"


def _describe(sweep: Sweep, run_dirs: Sequence[Path], load: LoadEpoch) -> Iterator[str]:
    """Say what came out best, how sure that is, and how flat the optimum."""
    best, ensemble = sweep.best(), sweep.run.ensemble
    if ensemble is not None:
        yield f"an ensemble of {describe_ensemble(ensemble)}"
    if best is None:
        yield sweep.why_no_best()
        return
    predictions = load(run_dirs, best.epoch)
    chosen = choose_boxes(predictions, best.postprocess)
    scores = image_scores(chosen.boxes, predictions.truth())
    low, high = bootstrap_interval(scores, predictions.patients)
    yield f"best score {best.score:.4f} (95 % of bootstrap draws {low:.4f} to {high:.4f})"
    honest = honest_score(run_dirs, sweep, load=load)
    low, high = honest.interval()
    yield (
        f"  honest score {honest.score:.4f} ({low:.4f} to {high:.4f}): each of "
        f"{len(honest.settings)} parts of the images at the setting that is best on the others"
    )
    if ensemble is None:
        yield f"  at --epoch {best.epoch} {_flags(best)}"
    else:
        networks = flags_of_ensemble(ensemble)
        yield f"  at {_flags(best)}" if networks is None else f"  at {networks} {_flags(best)}"
        if networks is None:
            yield "  (no flags name these members, because their epochs or weights differ by run)"
    near = sweep.near_best(best)
    yield f"  within {NEAR_BEST} of it: " + "; ".join(
        f"{name} {', '.join(map(str, near[name]))}" for name in AXES if len(near[name]) > 1
    )


def _flags(best: BestSetting) -> str:
    """Write the flags of a step that chooses boxes as the best setting does."""
    return " ".join(f"--{name} {getattr(best, name)}" for name in AXES if name != "epoch")


def _pools(sweeps: dict[Path, Sweep], n_folds: int) -> Iterator[tuple[str, list[Path]]]:
    """Find the models, and the ensembles, of which all folds are there: a pool's name and runs."""
    groups: dict[ScoredRun, list[tuple[int | None, Path]]] = {}
    for run_dir, sweep in sweeps.items():
        run = sweep.run
        shared = replace(run, fold=None, ensemble=run.ensemble and run.ensemble.without_folds())
        groups.setdefault(shared, []).append((run.fold, run_dir))
    for run, runs in groups.items():
        name, by_fold = Run(str(run.model), 0, str(run.tag or ""), Path()).common_name, dict(runs)
        if len(by_fold) < len(runs):
            print(f"{name}: a fold is given twice, so that the folds are not scored together")
        elif set(by_fold) == set(range(n_folds)):
            yield f"{name}_all_folds", [by_fold[fold] for fold in range(n_folds)]
        elif len(by_fold) > n_folds and set(by_fold) == set(range(len(by_fold))):
            print(f"{name}: {len(by_fold)} folds; --n-folds {len(by_fold)} scores them together")


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser("Sweep score and NMS thresholds over the saved predictions of runs.")
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="folders of runs, such as output/demo_fold_0; with "
        "--truth submission files")  # fmt: skip
    add("--numbers", action="store_true", help="average precision, FROC, AUROC and others, with "
        "intervals")  # fmt: skip
    add("--groups", type=Path, help="table of patientId and columns whose values are groups; gives "
        "the numbers of each")  # fmt: skip
    add("--image-scores", type=Path, help="table of patientId and probability, by any classifier, "
        "in place of the global head's")  # fmt: skip
    add("--truth", type=Path, help="labels to score submissions against")
    add("--truth-classes", type=Path, help="classes of the same images, for a score of each")
    add("--epochs", type=natural, nargs="+", help="default: all saved ones")
    add("--thresholds", type=number, nargs="+", default=SCORE_THRESHOLDS, help="on score x 5")
    add("--nms", type=fraction, nargs="+", default=NMS_GRID, help="IoU thresholds of the NMS")
    add("--shrinks", type=factor, nargs="+", default=SHRINK_GRID, help="factors on boxes' sides")
    add("--n-folds", type=between(2, MAX_FOLDS), default=N_FOLDS,
        help="folds of the data; where all are given, they are scored together too")  # fmt: skip
    add(
        "--gates",
        nargs="+",
        choices=tuple(GATES),
        default=tuple(GATES),
        help="what meets the threshold",
    )
    arguments = parser.parse_args()
    arguments.numbers = arguments.numbers or arguments.groups is not None
    if arguments.truth is None and arguments.truth_classes is not None:
        parser.error("--truth-classes needs --truth")
    for flag in ("epochs", "thresholds", "nms", "shrinks", "gates", "n_folds", "image_scores"):
        if arguments.truth is not None and getattr(arguments, flag) != parser.get_default(flag):
            name = flag.replace("_", "-")
            parser.error(
                f"--truth cannot be combined with --{name}: a submission is scored as it is"
            )
    return arguments


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        table = {} if arguments.groups is None else read_groups(arguments.groups)
        if arguments.truth is not None:
            _score_submissions(arguments, table)
            return
        load = _choose_loader(arguments.image_scores)
        grid = Grid(
            gates=tuple(dict.fromkeys(arguments.gates)),
            shrinks=tuple(dict.fromkeys(arguments.shrinks)),
            nms=tuple(dict.fromkeys(arguments.nms)),
            thresholds=tuple(sorted(set(arguments.thresholds))),
        )
        sweeps: dict[Path, Sweep] = {}
        for run_dir in arguments.runs:
            for name in (SWEEP, NUMBERS, GROUPS):
                check_file_place(run_dir / name)
        for run_dir in arguments.runs:
            sweeps[run_dir] = sweep_run(run_dir, arguments.epochs, grid, load=load)
            _save(sweeps[run_dir], run_dir, [run_dir], load)
            if arguments.numbers:
                _save_numbers(sweeps[run_dir], run_dir, [run_dir], table, load)
        for name, run_dirs in _pools(sweeps, arguments.n_folds):
            folder = run_dirs[0].parent / name
            sweep = sweep_pooled(run_dirs, arguments.epochs, grid, load=load)
            _save(sweep, folder, run_dirs, load)
            if arguments.numbers:
                _save_numbers(sweep, folder, run_dirs, table, load)


def _choose_loader(path: Path | None) -> LoadEpoch:
    """Load predictions as they are, or with another classifier's probabilities."""
    if path is None:
        return load_epoch
    scores = read_image_scores(path)
    return lambda run_dirs, epoch: with_image_scores(load_epoch(run_dirs, epoch), scores, path)


def _score_submissions(arguments: argparse.Namespace, table: GroupTable) -> None:
    for path in arguments.runs:
        submitted, records = read_with_truth(path, arguments.truth, arguments.truth_classes)
        result = score_boxes(submitted, records)
        print(f"{path}:", *result.lines(), sep="\n  ")
        if not arguments.numbers:
            continue
        predicted, confidences, true = boxes_of_images(submitted, records)
        data = scored_boxes(result.ids, result.patients, predicted, confidences, true)
        print("  of the boxes that were submitted, all of them")
        print(*describe_numbers(data, compute_numbers(data)), sep="\n  ")
        groups = list(group_numbers(data, result.image_scores, table))
        print(*describe_groups(groups), sep="\n  ")


def _save(sweep: Sweep, folder: Path, run_dirs: Sequence[Path], load: LoadEpoch) -> None:
    """Write a sweep, and say what came out."""
    path = folder / SWEEP
    sweep.save(path)
    print(f"{folder.resolve().name}:", "\n".join(_describe(sweep, run_dirs, load)))
    print(f"  {path.with_suffix('.csv')}")


def _save_numbers(
    sweep: Sweep, folder: Path, run_dirs: Sequence[Path], table: GroupTable, load: LoadEpoch
) -> None:
    """Compute the numbers that papers quote, of the best setting, and write and print them."""
    choice = sweep.choose(sweep.epochs)
    predictions, postprocess = load(run_dirs, choice.epoch), choice.postprocess
    data = scored_predictions(predictions, postprocess)
    results = compute_numbers(data)
    write_numbers(folder / NUMBERS, results, choice)
    print(f"  numbers of epoch {choice.epoch}", *describe_numbers(data, results), sep="\n  ")
    print(f"  {folder / NUMBERS}")
    if table:
        scores = image_scores(choose_boxes(predictions, postprocess).boxes, data.true)
        groups = list(group_numbers(data, scores, table))
        write_group_numbers(folder / GROUPS, groups, choice)
        print("", *describe_groups(groups), folder / GROUPS, sep="\n  ")


if __name__ == "__main__":
    main()
