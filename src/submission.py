"""Kaggle's submission file: write it from predictions, check it, describe it; command line.

python src/submission.py write predictions.npz --out submission.csv --postprocess second-place
python src/submission.py check submission.csv --sample stage_2_sample_submission.csv
python src/submission.py stats submission.csv --data-dir data
python src/submission.py coco predictions.npz --out results.json --images annotations.json
python src/submission.py from-coco results.json --out submission.csv --images annotations.json
python src/submission.py fuse one.csv other.npz --out fused.csv --method wbf
python src/submission.py fuse one.npz other.npz --out output/both_fold_0 --method wbf
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from typing import get_args

import numpy as np

from src.actions.flags import add_postprocess_flags, postprocess_flags
from src.challenge.coco import CocoId, CocoImage, read_coco, read_images
from src.challenge.submission_check import check_ids, check_submission, read_image_sizes
from src.challenge.submission_file import Size, SizeOf, SubmissionError, parse_submission
from src.challenge.submission_stats import (
    format_columns,
    submission_statistics,
    training_statistics,
)
from src.datasets.box_sizes import CHALLENGE_SIZE
from src.datasets.patient_ids import fault_of_patient_ids
from src.datasets.tables import read_sample_ids
from src.experiments.runs import Run
from src.prediction.coco_results import read_results, write_results
from src.prediction.fused_predictions import fuse_predictions
from src.prediction.fused_run import name_fused_run, write_fused_run
from src.prediction.fused_submission import write_fused
from src.prediction.fusion_inputs import (
    PREDICTIONS_ENDING,
    Detections,
    check_inputs,
    check_same_images,
    read_detections,
    settle_weights,
)
from src.prediction.fusion_settings import METHODS, Average, Decay, Fusion, choose_fusion
from src.prediction.image_scores import read_image_scores, with_image_scores
from src.prediction.outputs import made_by_path, write_submission, write_submission_of
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import Predictions, load_predictions
from src.prediction.presets import PRESETS, Postprocess, choose_postprocess
from src.prediction.provenance import Combination
from src.scoring.grid import sweep_run
from src.system.command_line import (
    CommandParser,
    above_zero,
    factor,
    fraction,
    natural,
    positive,
    report_errors,
)
from src.system.files import check_file_place, real_path

FUSION_FLAGS = ("iou", "decay", "sigma", "min_votes", "average", "skip_below", "threshold")


def _write(arguments: argparse.Namespace) -> None:
    path = arguments.predictions
    _check_out(arguments.out, ".csv", [path, arguments.sample, arguments.image_scores])
    predictions = load_predictions(path)
    if arguments.image_scores is not None:
        scores = read_image_scores(arguments.image_scores)
        predictions = with_image_scores(predictions, scores, arguments.image_scores)
    postprocess = _settle_postprocess(arguments, predictions)
    chosen = choose_boxes(predictions, postprocess)
    write_submission(arguments.out, predictions, chosen, path, sample_path=arguments.sample)
    n_with_boxes = int((chosen.boxes.counts() > 0).sum())
    print(f"{len(predictions)} images, {n_with_boxes} with boxes\n{arguments.out}")


def _check_out(out: Path, ending: str, inputs: Sequence[Path | None]) -> None:
    """Make sure that results, and what is written beside them, have a place that is no input's."""
    if out.suffix.lower() != ending:
        raise SubmissionError(f"--out {out}: does not end in {ending}")
    taken = [real_path(path) for path in inputs if path is not None]
    for path in (out, made_by_path(out)):
        check_file_place(path)
        if real_path(path) in taken:
            raise SubmissionError(f"--out {out}: {path} is one of the inputs; give another name")


def _write_coco(arguments: argparse.Namespace) -> None:
    path = arguments.predictions
    _check_out(arguments.out, ".json", [path, arguments.images])
    predictions = load_predictions(path)
    images = _read_images(arguments.images)
    chosen = choose_boxes(predictions, _settle_postprocess(arguments, predictions))
    category = arguments.category_id
    write_results(arguments.out, predictions, chosen, path, images=images, category_id=category)
    print(f"{len(predictions)} images, {len(chosen.scores)} boxes\n{arguments.out}")


def _from_coco(arguments: argparse.Namespace) -> None:
    if arguments.images is None and arguments.sample is None:
        raise SubmissionError(
            "from-coco needs --images or --sample: results name no image without a box"
        )
    inputs = [arguments.results, arguments.images, arguments.sample]
    _check_out(arguments.out, ".csv", inputs)
    found = read_results(
        arguments.results,
        _read_images(arguments.images),
        categories=arguments.category_ids,
        threshold=arguments.threshold,
    )
    fault = fault_of_patient_ids(found)
    if fault is not None:
        raise SubmissionError(f"{arguments.results}: makes no submission: {fault}")
    if arguments.sample is not None:
        order = read_sample_ids(arguments.sample)
        nothing = (np.zeros((0, 4)), np.zeros(0))
        check_ids([*order, *found], order, arguments.sample)
        found = {patient: found.get(patient, nothing) for patient in order}
    write_submission_of(arguments.out, found)
    n_with_boxes = sum(len(scores) > 0 for _, scores in found.values())
    n_without = len(found) - n_with_boxes
    print(
        f"{len(found)} images, {n_with_boxes} with boxes, {n_without} without, those that are not "
        f"in the results among them\n{arguments.out}"
    )


def _fuse(arguments: argparse.Namespace) -> None:
    paths, out = arguments.inputs, arguments.out
    check_inputs(paths)
    run = name_fused_run(out)
    makes_predictions = run is not None or out.suffix == PREDICTIONS_ENDING
    if makes_predictions and PREDICTIONS_ENDING not in {path.suffix for path in paths}:
        raise SubmissionError(f"{out}: needs a {PREDICTIONS_ENDING} file among the inputs")
    if run is None:
        _check_out(out, PREDICTIONS_ENDING if makes_predictions else ".csv", paths)
    weights = settle_weights(arguments.weights, paths)
    given = {name: getattr(arguments, name) for name in FUSION_FLAGS}
    fusion = choose_fusion(arguments.method, given, n_detectors=len(paths))
    _check_choice(arguments)
    inputs = [read_detections(path, nms=arguments.nms, shrink=arguments.shrink) for path in paths]
    check_same_images(inputs)
    size_of = _choose_fused_sizes(arguments, inputs)
    if makes_predictions:
        _save_fused(out, run, inputs, weights, fusion)
        return
    fused = write_fused(out, inputs, weights, fusion, size_of=size_of)
    n_with_boxes = sum(len(scores) > 0 for _, scores in fused.values())
    print(f"{len(fused)} images, {n_with_boxes} with boxes\n{out}")


def _save_fused(
    out: Path,
    run: Run | None,
    inputs: Sequence[Detections],
    weights: Sequence[float],
    fusion: Fusion,
) -> None:
    """Save predictions, as a file or as a run, which is scored as check_metric scores one."""
    folder = out.parent if run is None else out
    predictions = fuse_predictions(inputs, weights, fusion, folder=folder, run=run)
    if run is None:
        predictions.save(out)
    else:
        write_fused_run(run, predictions, inputs)
    n_with_boxes = int((predictions.candidates().counts() > 0).sum())
    print(f"{len(predictions)} images, {n_with_boxes} with boxes\n{out}")
    if run is not None and predictions.has_truth:
        sweep = sweep_run(run.dir)
        sweep.save(run.scores_path)
        best = sweep.best()
        print(
            sweep.why_no_best()
            if best is None
            else f"best score {best.score:.4f} at threshold {best.threshold:g}"
        )


def _check_choice(arguments: argparse.Namespace) -> None:
    """Refuse flags that choose among candidates where every input is a submission."""
    if any(path.suffix == PREDICTIONS_ENDING for path in arguments.inputs):
        return
    for name in ("nms", "shrink"):
        if getattr(arguments, name) is not None:
            raise SubmissionError(f"--{name} needs a {PREDICTIONS_ENDING} file among the inputs")


def _choose_fused_sizes(arguments: argparse.Namespace, inputs: Sequence[Detections]) -> SizeOf:
    """Take the sizes of the images that predictions know; without any, those of the flags.

    Without these either, the sizes are unknown and nothing is cut: a fused box lies among those
    that it was fused of.
    """
    known: dict[str, Size] = {}
    for own in inputs:
        known |= own.sizes
    if not known and arguments.data_dir is None and arguments.image_size is None:
        return known.get
    if not known:
        return _choose_sizes(arguments, list(inputs[0].found))
    for name in ("image_size", "data_dir"):
        value = getattr(arguments, name)
        if value is not None:
            path = next(own.path for own in inputs if own.sizes)
            flag = f"--{name.replace('_', '-')} {value}"
            raise SubmissionError(f"{flag}: has no effect: {path} tells the sizes of the images")
    return known.get


def _read_images(path: Path | None) -> dict[CocoId, CocoImage] | None:
    return None if path is None else read_images(path, read_coco(path))


def _settle_postprocess(arguments: argparse.Namespace, predictions: Predictions) -> Postprocess:
    """Join the flags with how the sizes were combined when the images were predicted."""
    ensemble = predictions.provenance.ensemble
    settled = {} if ensemble is None else {"size_rule": ensemble.size_rule, "k": ensemble.k}
    if ensemble is not None and arguments.postprocess is not None:
        _check_sizes(arguments.predictions, arguments.postprocess, ensemble)
    postprocess = choose_postprocess(
        arguments.postprocess,
        postprocess_flags(arguments) | settled,
        combines=ensemble is not None,
    )
    if postprocess.threshold_is_open:
        raise SubmissionError("say the threshold by --threshold; check_metric prints the best one")
    return postprocess


def _check_sizes(path: Path, preset: str, ensemble: Combination) -> None:
    """Refuse a preset that combines the sizes of boxes in another way than the ensemble did.

    Raises:
        SubmissionError: it does; the message says what can be done instead.
    """
    ways = {name: (each.size_rule, each.k) for name, each in PRESETS.items()}
    settled = (ensemble.size_rule, ensemble.k)
    if ways[preset] == settled:
        return
    same = [name for name, way in ways.items() if way == settled]
    instead = f"take --postprocess {same[0]}" if same else "leave --postprocess out"
    raise SubmissionError(
        f"{path}: the ensemble combined box sizes by {_in_words(*settled)} when it predicted, and "
        f"--postprocess {preset} takes {_in_words(*ways[preset])}: {instead}, or predict again "
        f"with generate_predictions --postprocess {preset}"
    )


def _in_words(size_rule: str, k: float | None) -> str:
    return "means" if size_rule == "mean" else f"percentiles with k {k or 0:g}"


def _check(arguments: argparse.Namespace) -> None:
    path = arguments.submission
    patients = [] if arguments.data_dir is None else list(parse_submission(path).lines)
    size_of = _choose_sizes(arguments, patients)
    submission = check_submission(path, arguments.sample, size_of=size_of)
    for fault in submission.faults:
        print(fault.describe(path))
    sys.stdout.flush()  # the verdict comes last
    n_faults, n_rows = len(submission.faults), len(submission.lines)
    if n_faults:
        raise SubmissionError(f"{path}: {n_faults} faults among {n_rows} images")
    n_boxes = sum(map(len, submission.boxes.values()))
    held = "the form" if arguments.sample is None else f"the form and {arguments.sample}"
    print(f"{path}: agrees with {held}: {n_rows} images, {n_boxes} boxes", file=sys.stderr)


def _choose_sizes(arguments: argparse.Namespace, patients: Sequence[str]) -> SizeOf:
    """Take the sizes of the images of --data-dir, or one for all: --image-size, the challenge's."""
    if arguments.data_dir is not None:
        return read_image_sizes(arguments.data_dir, patients).get
    if arguments.image_size is None:
        return lambda patient: CHALLENGE_SIZE
    return lambda patient: (arguments.image_size, arguments.image_size)


def _stats(arguments: argparse.Namespace) -> None:
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
    add("--image-scores", type=Path, help="table of patientId and probability, by any classifier, "
        "in place of the global head's")  # fmt: skip
    add("--sample", type=Path, help="sample submission: its patients, in its order")

    coco = actions.add_parser("coco", help="make COCO results from saved predictions")
    coco.set_defaults(act=_write_coco)
    add = coco.add_argument
    add("predictions", type=Path, help="an .npz file from the folder predictions/ of a run")
    add("--out", type=Path, required=True, help="the results, a JSON file")
    add_postprocess_flags(coco)
    add("--images", type=Path, help="COCO file with the images' ids (default: ids are patientIds)")
    add("--category-id", type=natural, default=1, help="of an opacity in that file")

    from_coco = actions.add_parser("from-coco", help="make a submission from any COCO results")
    from_coco.set_defaults(act=_from_coco)
    add = from_coco.add_argument
    add("results", type=Path, help="a JSON file, the results of any detector")
    add("--out", type=Path, required=True, help="the submission, a CSV file")
    add("--images", type=Path, help="COCO file with the images; else their ids are file names")
    add("--sample", type=Path, help="sample submission: its patients, in its order")
    add("--threshold", type=fraction, default=0.0, help="on the results' score")
    add("--category-ids", type=natural, nargs="+", help="those that count (default: all)")

    _add_fuse(actions)

    check = actions.add_parser("check", help="list every fault of a submission")
    check.set_defaults(act=_check)
    check.add_argument("submission", type=Path, help="a CSV file")
    check.add_argument("--sample", type=Path, help="sample submission, for its patients")
    _add_sizes(check, default="1024")

    stats = actions.add_parser("stats", help="describe the boxes of a submission")
    stats.set_defaults(act=_stats)
    stats.add_argument("submission", type=Path, help="a CSV file")
    stats.add_argument("--data-dir", type=Path, help="show its training boxes beside")
    return parser.parse_args()


def _add_fuse(actions: argparse._SubParsersAction[CommandParser]) -> None:
    fuse = actions.add_parser("fuse", help="make one detector's boxes of several detectors'")
    fuse.set_defaults(act=_fuse)
    add = fuse.add_argument
    add("inputs", type=Path, nargs="+", help="submissions, and .npz files of predictions")
    add("--out", type=Path, required=True, help="a submission, a CSV file; or predictions, an .npz "
        "file; or the folder of a new run, <name>_fold_<k>")  # fmt: skip
    add("--method", choices=tuple(METHODS), required=True, help="how boxes are fused")
    add("--iou", type=fraction, help="above which two boxes overlap (default: 0.5)")
    add("--weights", type=above_zero, nargs="+", metavar="N", help="one for each input")
    add("--min-votes", type=positive, help="inputs that agree on a box (default: over half)")
    add("--average", choices=get_args(Average), help="of a vote's boxes (default: mean)")
    add("--decay", choices=get_args(Decay), help="of soft-nms (default: gaussian)")
    add("--sigma", type=above_zero, help="of the Gaussian of soft-nms (default: 0.5)")
    add("--skip-below", type=fraction, help="score below which a box of an input is left out")
    add("--threshold", type=fraction, help="score below which a fused box is left out")
    add("--nms", type=fraction, help="of an .npz: IoU over which the weaker box goes")
    add("--shrink", type=factor, help="of an .npz: factor on the sides of boxes")
    _add_sizes(fuse, default="boxes are not cut")


def _add_sizes(parser: argparse.ArgumentParser, *, default: str) -> None:
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--image-size", type=positive, help=f"of each side (default: {default})")
    sizes.add_argument("--data-dir", type=Path, help="take the sizes of its images")


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        arguments.act(arguments)


if __name__ == "__main__":
    main()
