"""The flags of train_runner, each defined once: as a field of `Flags`, with its actions.

Whether flags fit together is decided here, as far as no file needs to be read for it. `--help` and
a wrong flag import this module, so it imports nothing that takes long.
"""

# ruff: noqa: RUF009 - the functions that define fields call dataclasses.field

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

from src.experiments.experiment import MAX_COUNT
from src.experiments.runs import DEBUG_TAG, ENSEMBLE_TAG, Run
from src.prediction.presets import GATES, PRESETS, SIZE_RULES
from src.retinanet.settings import DEFAULT_WEAK, NO_WEAK, WeakLimits
from src.structures import MAX_FOLDS, Precision
from src.system.command_line import (
    CommandParser,
    above_zero,
    add_flag,
    below,
    between,
    factor,
    flag,
    flag_of,
    fraction,
    name_part,
    natural,
    not_negative,
    number,
    positive,
    rate,
    switch,
    yes_or_no,
)

ACTIONS = ("train", "check_metric", "generate_predictions", "test_model", "check_data")
TRAIN, CHECK_METRIC, PREDICT, TEST_MODEL, CHECK_DATA = ((action,) for action in ACTIONS)
CHOOSE_BOXES = CHECK_METRIC + PREDICT + TEST_MODEL
USE_WEIGHTS = TRAIN + PREDICT + TEST_MODEL
DEFAULT_SEED = 1234


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Flags:
    """What a command line asks for; the text of each field is its line of --help."""

    action: str = flag(ACTIONS, "what to do", "train", choices=ACTIONS)
    models: tuple[str, ...] = flag(
        ACTIONS, "experiment; generate_predictions combines several",
        ("se_resnext101_dr0.75_512",), nargs="+", metavar="MODEL", names=("--model",))
    run: str = flag(ACTIONS, "tells runs of one experiment apart", "", kind=name_part,
                    metavar="TAG")
    fold: int = flag(ACTIONS, "validation fold, from 0", 0, kind=below(MAX_FOLDS))
    data_dir: Path = flag(ACTIONS, "the challenge's unpacked archive", MISSING, kind=Path)
    output_dir: Path = flag(ACTIONS, "folder of all runs", MISSING, kind=Path)
    from_epoch: int = flag(ACTIONS, "first epoch; train loads the one before", 0, kind=natural)
    num_epochs: int | None = flag(ACTIONS, "end before epoch N (default: the experiment's)",
                                  kind=between(1, MAX_COUNT))
    batch_size: int | None = flag(ACTIONS, "images in a batch (default: the experiment's)",
                                  kind=between(1, MAX_COUNT))
    debug: bool = flag(ACTIONS, "use a few images, in a run of their own", False,
                       kind=yes_or_no, nargs="?", const=True, metavar="BOOL")
    device: str = flag(ACTIONS, "auto, cpu, cuda or cuda:N", "auto")
    precision: Precision | None = flag(ACTIONS, "number format (default: bf16 if the GPU has it)",
                                       choices=get_args(Precision))
    compile: bool = switch(ACTIONS, "compile the network; the first batches wait")
    deterministic: bool = switch(ACTIONS, "the same numbers in every run on a GPU")
    num_workers: int | None = flag(ACTIONS, "processes that prepare images (default: at most 8)",
                                   kind=natural)
    cache: bool = switch(ACTIONS, "keep decoded images in one file for all runs")
    list_models: bool = switch(ACTIONS, "print the experiments and stop")

    seed: int | None = flag(TRAIN, f"of all random numbers (default: {DEFAULT_SEED})", kind=natural)
    settings: tuple[str, ...] = flag(TRAIN, "change settings of the experiment, such as fit=pad",
                                     (), kind=str, nargs="+", metavar="FIELD=VALUE",
                                     names=("--set",))
    learning_rate: float | None = flag(TRAIN, "of the optimizer (default: the experiment's)",
                                       kind=rate)
    checkpoint_encoder: bool = switch(TRAIN, "use less memory: compute the encoder twice")
    resume: bool = switch(TRAIN, "continue a training that was stopped")
    checkpoint_minutes: float = flag(TRAIN, "longest time between saved states", 10.0,
                                     kind=not_negative)
    patience: int | None = flag(TRAIN, "end N epochs after the least valid_regression",
                                kind=positive)
    max_hours: float | None = flag(TRAIN, "after these hours save and stop, with exit code 75",
                                   kind=above_zero, metavar="H")
    skip_non_finite: bool = switch(TRAIN, "skip steps whose loss or gradient is not finite")
    from_experiment: Path | None = flag(TRAIN, "repeat the training of an experiment.json",
                                        kind=Path)
    encoder_weights: Path | None = flag(TRAIN, "file of pretrained weights", kind=Path)
    init_weights: Path | None = flag(TRAIN, "begin with the weights of any checkpoint that fits",
                                     kind=Path)
    weights_dir: Path | None = flag(USE_WEIGHTS, "load weights from this folder of runs",
                                    kind=Path, names=("--weights_dir",))
    weak_candidates: int | None = flag(
        TRAIN + PREDICT, "weaker boxes to save (default: 100 if labelled)", kind=natural)

    epoch: tuple[int, ...] | None = flag(
        CHOOSE_BOXES, "which ones (default: all to score, else the best)", kind=natural, nargs="+",
        names=("--epoch", "--epochs"))
    postprocess: str | None = flag(CHOOSE_BOXES, "preset of how boxes are chosen",
                                   choices=tuple(PRESETS))
    gate: str | None = flag(CHOOSE_BOXES, "what the threshold is compared with",
                             choices=tuple(GATES))
    nms: float | None = flag(CHOOSE_BOXES, "IoU over which the weaker box goes", kind=fraction)
    shrink: float | None = flag(CHOOSE_BOXES, "factor on the sides of boxes", kind=factor)

    threshold: float | None = flag(
        PREDICT + TEST_MODEL, "on score x 5 (default: check_metric's best)", kind=number)
    split: str = flag(PREDICT, "validation fold or test images", "valid",
                      choices=("valid", "test"))
    input: Path | None = flag(PREDICT, "predict this image, or a folder of them", kind=Path)
    skip_unreadable: bool = switch(PREDICT, "skip files that are no radiographs")
    folds: tuple[int, ...] | None = flag(
        TRAIN + PREDICT, "train these in turn; predict by all of them together",
        kind=below(MAX_FOLDS), nargs="+")
    weights: tuple[str, ...] | None = flag(
        PREDICT, "predict by these weights (or hf:owner/name), not a run", kind=str,
        nargs="+", metavar="FILE")
    tta: str | None = flag(PREDICT, "predict mirrored images as well", choices=("hflip",))
    run_weights: tuple[float, ...] | None = flag(
        PREDICT, "one for each run or file, model by model", kind=not_negative, nargs="+")
    combine: str | None = flag(PREDICT, "how an ensemble combines box sizes", choices=SIZE_RULES)
    k: float | None = flag(PREDICT, "box sizes are p20 + k (p20 - p80)", kind=number)
    overlays: bool = switch(PREDICT, "draw the boxes over the images")
    overwrite: bool = switch(PREDICT, "replace predictions that are there already")
    out: Path | None = flag(PREDICT + CHECK_DATA, "folder of results; check_data: a CSV file",
                            kind=Path)

    num_images: int = flag(TEST_MODEL, "how many pictures", 24, kind=positive)

    full: bool = switch(CHECK_DATA, "decode every image, not its header alone")
    # fmt: on

    @property
    def model(self) -> str:
        """Return the experiment; of several the first."""
        return self.models[0]

    @property
    def tag(self) -> str:
        """Return what the run's name contains beside model and fold."""
        return "_".join(part for part in (self.run, DEBUG_TAG * self.debug) if part)

    @property
    def weak(self) -> WeakLimits:
        """Return which boxes are saved beside the candidates: numbers of labelled images need them.

        The box head runs more often for them, so that other images go without.
        """
        if self.weak_candidates is not None:
            return replace(DEFAULT_WEAK, max_count=self.weak_candidates)
        return NO_WEAK if self.input is not None or self.split == "test" else DEFAULT_WEAK

    @property
    def cache_dir(self) -> Path | None:
        """Return where decoded images are kept; None where they are not."""
        return self.output_dir / "cache" if self.cache else None

    @property
    def asks_for_ensemble(self) -> bool:
        """Say whether the flags combine networks, or the views of one."""
        several = self.folds or self.run_weights or len(self.models) > 1
        several = several or len(self.weights or ()) > 1
        return bool(several or self.tta)

    @property
    def fills_folder(self) -> bool:
        """Say whether predictions go into a folder of their own instead of their run's."""
        return self.input is not None or (self.split == "test" and self.asks_for_ensemble)


# The second flag repeats or contradicts what the first one says.
EXCLUSIVE = (
    *(("epoch", other) for other in ("from_epoch", "num_epochs")),
    ("folds", "fold"),
    ("input", "split"),
    *(("init_weights", other) for other in ("from_epoch", "weights_dir", "encoder_weights")),
    *(("from_experiment", other) for other in (
        "models", "fold", "folds", "seed", "precision", "settings", "batch_size",
        "learning_rate", "num_epochs")),
    *(("weights", other) for other in (
        "models", "run", "fold", "folds", "epoch", "from_epoch", "num_epochs", "weights_dir",
        "split")),
)  # fmt: skip
FIELDS = {each.name: each for each in fields(Flags)}


def parse_flags(argv: Sequence[str] | None = None, *, data_dir: Path, output_dir: Path) -> Flags:
    """Read a command line; end the program where it is wrong.

    `--debug`, `--debug True` and `--debug False` all do what they say.

    Args:
        argv: the words after the command's name; None takes those of this program.
        data_dir, output_dir: defaults of --data-dir and --output-dir.
    """
    parser = CommandParser(
        "Train, score, predict, look.",
        usage="%(prog)s [--action ACTION] [--model MODEL] [flags of the action]",
    )
    _add_groups(parser)
    folders = {"data_dir": data_dir, "output_dir": output_dir}
    parser.set_defaults(**folders)
    unset = argparse.Namespace(**dict.fromkeys(FIELDS))  # keeps the parser from filling in defaults
    values = vars(parser.parse_args(argv, unset))
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None
    }
    flags = Flags(**folders | given)
    for fault in _find_faults(flags, given):
        parser.error(fault)
    return flags


def add_postprocess_flags(parser: argparse.ArgumentParser) -> None:
    """Define the flags that choose which boxes count; each overrides its value of the preset."""
    for name in ("postprocess", "threshold", "nms", "gate", "shrink"):
        add_flag(parser, FIELDS[name])


def postprocess_flags(flags: Flags | argparse.Namespace) -> dict[str, Any]:
    """Return the values that flags name for fields of `presets.Postprocess`; None where none."""
    names = ("gate", "threshold", "nms", "shrink", "k")
    values = {name: getattr(flags, name, None) for name in names}
    return values | {"size_rule": getattr(flags, "combine", None)}


def _add_groups(parser: CommandParser) -> None:
    """Define all flags: first what every action takes, then the flags of each action.

    A flag of several actions is described with the first of them, and named with the others.
    """
    group = parser.add_argument_group("every action")
    for each in FIELDS.values():
        if each.metadata["actions"] == ACTIONS:
            add_flag(group, each)
    for action in ACTIONS:
        some = [each for each in FIELDS.values() if each.metadata["actions"] != ACTIONS]
        taken = [each for each in some if action in each.metadata["actions"]]
        own = [each for each in taken if each.metadata["actions"][0] == action]
        known = ", ".join(flag_of(each) for each in taken if each not in own)
        group = parser.add_argument_group(action, f"see above: {known}" if known else None)
        for each in own:
            add_flag(group, each)


def _find_faults(flags: Flags, given: Collection[str]) -> Iterator[str]:
    """Find flags that the action, or another flag, leaves without a meaning.

    Args:
        given: the fields that the command line sets.
    """
    action = flags.action
    if len(flags.models) > 1 and action not in PREDICT:
        yield f"--action {action} takes one --model, not {len(flags.models)}"
    for name, each in FIELDS.items():
        actions = each.metadata["actions"]
        if name in given and action not in actions:
            does = "does" if len(actions) == 1 else "do"
            yield f"--action {action} takes no {flag_of(each)}; {' and '.join(actions)} {does}"
    for name, other in EXCLUSIVE:
        if name in given and other in given:
            yield f"{flag_of(FIELDS[name])} cannot be combined with {flag_of(FIELDS[other])}"
    if action in TRAIN:
        yield from _find_faults_of_training(flags, given)
    if action in PREDICT:
        yield from _find_faults_of_predictions(flags, given)


def _find_faults_of_training(flags: Flags, given: Collection[str]) -> Iterator[str]:
    if "weights_dir" in given and "from_epoch" not in given:
        yield "--weights_dir needs --from-epoch: training starts from the weights before that epoch"
    if f"_{flags.tag}".endswith(f"_{ENSEMBLE_TAG}"):
        yield f'--run {flags.run}: tags ending in "{ENSEMBLE_TAG}" are reserved for ensembles'


def _find_faults_of_predictions(flags: Flags, given: Collection[str]) -> Iterator[str]:
    if flags.skip_unreadable and flags.input is None and flags.split != "test":
        yield "--skip-unreadable needs --input or --split test"
    for name in ("out", "overlays"):
        if name in given and not flags.fills_folder:
            yield f"{flag_of(FIELDS[name])} needs --input, or --split test and an ensemble"
    for name in ("combine", "k"):
        if name in given and not flags.asks_for_ensemble:
            yield f"{flag_of(FIELDS[name])} needs an ensemble: several networks, or --tta"
    if flags.weights is not None and flags.input is None:
        yield "--weights needs --input"
    if flags.run_weights is not None:
        runs = list(flags.weights or ()) or [
            Run(model, fold, flags.tag, flags.output_dir).name
            for model in flags.models
            for fold in flags.folds or (flags.fold,)
        ]
        if len(flags.run_weights) != len(runs):
            yield (f"--run-weights: {len(flags.run_weights)} weights for {len(runs)} runs, which "
                   f"are {', '.join(runs)}")  # fmt: skip
        if not any(flags.run_weights):
            yield "--run-weights: one of them must be greater than 0"
