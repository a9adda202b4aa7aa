"""The flags of train_runner; those of the original release first."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from src.prediction.presets import GATES, PRESETS, SIZE_RULES
from src.structures import N_FOLDS
from src.system.command_line import (
    CommandParser,
    below,
    factor,
    natural,
    not_negative,
    number,
    positive,
    rate,
    share,
    yes_or_no,
)

ACTIONS = ("train", "check_metric", "generate_predictions", "test_model", "check_data")

# Flags that are a wish to these actions alone: given to another, they would be lost in silence.
TAKEN_BY = (
    (("train",), ("--seed", "--accumulate", "--learning-rate", "--checkpoint-encoder", "--resume",
                  "--checkpoint-minutes", "--skip-non-finite", "--from-experiment",
                  "--encoder-weights")),
    (("generate_predictions",), ("--split", "--input", "--skip-unreadable", "--folds", "--tta",
                                 "--run-weights", "--combine", "--k", "--overlays", "--overwrite")),
    (("test_model",), ("--num-images",)),
    (("check_data",), ("--full",)),
    (("generate_predictions", "check_data"), ("--out",)),
    (("generate_predictions", "test_model"), ("--threshold",)),
    (("train", "generate_predictions", "test_model"), ("--weights_dir",)),
    (("check_metric", "generate_predictions", "test_model"),
     ("--epoch", "--postprocess", "--gate", "--nms", "--shrink")),
)  # fmt: skip
# The second flag says again, or otherwise, what the first one says.
EXCLUSIVE = (
    *(("--epoch", other) for other in ("--from-epoch", "--num-epochs")),
    ("--folds", "--fold"),
    ("--input", "--split"),
    *(("--from-experiment", other) for other in (
        "--model", "--fold", "--seed", "--precision", "--batch-size", "--accumulate",
        "--learning-rate", "--num-epochs")),
)  # fmt: skip


def parse_arguments(*, data_dir: Path, output_dir: Path) -> argparse.Namespace:
    """Define the flags and read them.

    `--debug`, `--debug True` and `--debug False` all do what they say.

    Args:
        data_dir, output_dir: defaults of --data-dir and --output-dir.
    """
    parser = CommandParser("Train, score, predict, look.")
    add = parser.add_argument
    add("--action", choices=ACTIONS, default="train", help="what to do")
    add("--model", dest="models", metavar="MODEL", nargs="+", default=["se_resnext101_dr0.75_512"],
        help="experiment, a name in src/experiments/table.py; "
        "generate_predictions combines several into one ensemble")  # fmt: skip
    add("--run", default="", help="tag of the run; tells runs of one experiment apart")
    add("--seed", type=natural, default=1234, help="of order, augmentation, weights and dropout")
    add("--fold", type=below(N_FOLDS), default=0, help="validation fold, 0 to 3")
    add("--weights_dir", type=Path, help="take checkpoints from the run of that name in this "
        "folder instead of --output-dir")  # fmt: skip
    add("--epoch", "--epochs", type=natural, nargs="+", help="epochs to score, predict or show; "
        "by default all for check_metric, the best (or last) for the others")  # fmt: skip
    add("--from-epoch", type=natural, default=0, help="train: go on from the weights of the epoch "
        "before; others: first epoch")  # fmt: skip
    add("--num-epochs", type=positive, help="train epochs 0 to N - 1; others: epochs below N; by "
        "default the experiment's own")  # fmt: skip
    add("--batch-size", type=positive, help="by default the experiment's own")
    add("--accumulate", type=positive, help="batches to a training step; by default one")
    add("--learning-rate", type=rate, help="by default the experiment's own")
    add("--debug", type=yes_or_no, nargs="?", const=True, default=False,
        help="a few images only, in a run of their own")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="of the arithmetic; by default bf16 "
        "on GPUs that have it")  # fmt: skip
    add("--compile", action="store_true", help="let torch.compile fuse what it can; the first "
        "batches wait for it")  # fmt: skip
    add("--deterministic", action="store_true", help="on a GPU: the same numbers in every run, "
        "somewhat slower")  # fmt: skip
    add("--checkpoint-encoder", action="store_true", help="train: compute the encoder twice "
        "instead of keeping its activations, for small GPUs")  # fmt: skip
    add("--num-workers", type=natural, help="processes that prepare images; by default one for "
        "each core, half of that where the network runs on the CPU, 8 at most")  # fmt: skip
    add("--cache", action="store_true", help="keep the labelled images, decoded, in one file under "
        "--output-dir that all runs share; its size is told first")  # fmt: skip
    add("--data-dir", type=Path, default=data_dir, help="the challenge's unpacked archive")
    add("--output-dir", type=Path, default=output_dir, help="the folder of all runs")
    add("--resume", action="store_true", help="go on with a training that was stopped")
    add("--checkpoint-minutes", type=not_negative, default=10.0, help="train: at most so much is "
        "lost when the machine dies")  # fmt: skip
    add("--skip-non-finite", action="store_true", help="train: leave out steps whose loss or "
        "gradient is not finite, and count them")  # fmt: skip
    add("--from-experiment", type=Path, help="train: repeat the training that this experiment.json "
        "describes")  # fmt: skip
    add("--encoder-weights", type=Path, help="a file of ImageNet weights for the encoder")
    add("--split", choices=("valid", "test"), default="valid",
        help="generate_predictions: the validation fold or the test images")  # fmt: skip
    add("--input", type=Path, help="generate_predictions: a DICOM, PNG or JPEG file, or a folder "
        "of them, instead of a split")  # fmt: skip
    add("--out", type=Path, help="with --input, or --split test and an ensemble: the folder of the "
        "results; without an ensemble by epoch; check_data: the CSV file, by default "
        "check_data.csv among the runs")  # fmt: skip
    add("--full", action="store_true", help="check_data: decode every image, not its header alone")
    add("--skip-unreadable", action="store_true", help="with --input: leave out files that are no "
        "radiographs, and name them")  # fmt: skip
    add("--folds", type=below(N_FOLDS), nargs="+", help="generate_predictions: combine these "
        "folds, and all epochs of --epoch, into one ensemble")  # fmt: skip
    add("--tta", choices=("hflip",), help="generate_predictions: show the mirrored image as well")
    add("--run-weights", type=not_negative, nargs="+", help="a weight for each run of an ensemble: "
        "the folds of the first model, then those of the next; by default all networks weigh "
        "alike")  # fmt: skip
    add("--combine", choices=SIZE_RULES, help="how an ensemble combines the "
        "sizes of boxes, instead of the preset's way")  # fmt: skip
    add("--k", type=number, help="sizes of an ensemble by percentiles: p20 + k (p20 - p80)")
    add("--overlays", action="store_true", help="with --input, or --split test and an ensemble: "
        "draw the boxes over the images")  # fmt: skip
    add_postprocess_flags(parser)
    add("--num-images", type=positive, default=24, help="test_model: how many pictures")
    add("--list-models", action="store_true", help="print the experiments and stop")
    add("--overwrite", action="store_true", help="make predictions again that are there already")
    parser.set_defaults(expected_fingerprint=None)
    arguments = parser.parse_args()
    unset = argparse.Namespace(**dict.fromkeys(vars(arguments)))
    _refuse_what_would_be_ignored(parser, arguments, parser.parse_args(namespace=unset))
    arguments.model = arguments.models[0]
    arguments.cache_dir = arguments.output_dir / "cache" if arguments.cache else None
    return arguments


def add_postprocess_flags(parser: argparse.ArgumentParser) -> None:
    """Define the flags that choose which boxes count; each overrides its value of the preset."""
    add = parser.add_argument
    add("--postprocess", choices=tuple(PRESETS), help="how boxes are chosen, see "
        "src/prediction/presets.py; by default plain for one network, second-place for an "
        "ensemble")  # fmt: skip
    add("--threshold", type=number, help="a box counts when its gate (score x 5) is greater; by "
        "default the best of check_metric, for second-place 0.3")  # fmt: skip
    add("--nms", type=share, help="IoU over which the weaker of two boxes goes")
    add("--gate", choices=GATES, help="what meets the threshold")
    add("--shrink", type=factor, help="factor on the sides of boxes")


def postprocess_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the values that flags name for fields of `presets.Postprocess`; None where none."""
    names = ("gate", "threshold", "nms", "shrink", "k")
    values = {name: getattr(arguments, name, None) for name in names}
    return values | {"size_rule": getattr(arguments, "combine", None)}


def _refuse_what_would_be_ignored(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, given: argparse.Namespace
) -> None:
    """Stop a command with a flag that its action, or another flag, leaves without a meaning.

    Args:
        given: the same flags without their defaults: None where the command line names none.
    """

    def is_given(flag: str) -> bool:
        name = "models" if flag == "--model" else flag.removeprefix("--").replace("-", "_")
        return getattr(given, name) is not None

    action = arguments.action
    if len(arguments.models) > 1 and action != "generate_predictions":
        parser.error(f"--action {action} takes one --model, not {len(arguments.models)}")
    for actions, flags in TAKEN_BY:
        for flag in flags:
            if is_given(flag) and action not in actions:
                does = "does" if len(actions) == 1 else "do"
                parser.error(f"--action {action} takes no {flag}; {' and '.join(actions)} {does}")
    for flag, other in EXCLUSIVE:
        if is_given(flag) and is_given(other):
            parser.error(f"{flag} goes without {other}")
    if action == "train" and is_given("--weights_dir") and not is_given("--from-epoch"):
        parser.error("--weights_dir needs --from-epoch, which says what to train on from")
    if is_given("--skip-unreadable") and not is_given("--input"):
        parser.error("--skip-unreadable needs --input")
