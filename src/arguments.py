"""The flags of train_runner; those of the original release first."""

from __future__ import annotations

import argparse
from pathlib import Path

from src.errors import CommandParser
from src.runs import N_FOLDS

ACTIONS = ("train", "check_metric", "generate_predictions", "test_model", "check_data")


def parse_arguments(*, data_dir: Path, output_dir: Path) -> argparse.Namespace:
    """Define the flags and read them.

    `--debug`, `--debug True` and `--debug False` all do what they say.

    Args:
        data_dir, output_dir: defaults of --data-dir and --output-dir.
    """
    parser = CommandParser("Train, score, predict, look.")
    add = parser.add_argument
    add("--action", choices=ACTIONS, default="train", help="what to do")
    add("--model", default="se_resnext101_dr0.75_512", help="experiment, a name in src/models.py")
    add("--run", default="", help="tag of the run; tells runs of one experiment apart")
    add("--seed", type=_natural, default=1234, help="of order, augmentation, weights and dropout")
    add("--fold", type=_fold, default=0, help="validation fold, 0 to 3")
    add("--weights_dir", type=Path, help="take checkpoints from the run of that name in this "
        "folder instead of --output-dir")  # fmt: skip
    add("--epoch", type=_natural, nargs="+", help="epochs to score, predict or show; by default "
        "all for check_metric, the best (or last) for the others")  # fmt: skip
    add("--from-epoch", type=_natural, default=0, help="train: go on from the weights of the epoch "
        "before; others: first epoch")  # fmt: skip
    add("--num-epochs", type=_positive, help="train epochs 0 to N - 1; others: epochs below N; by "
        "default the experiment's own")  # fmt: skip
    add("--batch-size", type=_positive, help="by default the experiment's own")
    add("--learning-rate", type=_rate, help="by default the experiment's own")
    add("--debug", type=_yes_or_no, nargs="?", const=True, default=False,
        help="a few images only, in a run of their own")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--num-workers", type=_natural, help="processes that prepare images; by default one for "
        "each core, half of that where the network runs on the CPU, 8 at most")  # fmt: skip
    add("--data-dir", type=Path, default=data_dir, help="the challenge's unpacked archive")
    add("--output-dir", type=Path, default=output_dir, help="the folder of all runs")
    add("--resume", action="store_true", help="go on with a training that was stopped")
    add("--encoder-weights", type=Path, help="a file of ImageNet weights for the encoder")
    add("--split", choices=("valid", "test"), default="valid",
        help="generate_predictions: the validation fold or the test images")  # fmt: skip
    add("--input", type=Path, help="generate_predictions: a DICOM, PNG or JPEG file, or a folder "
        "of them, instead of a split")  # fmt: skip
    add("--out", type=Path, help="with --input: the folder of the results, by epoch; check_data: "
        "the CSV file, by default check_data.csv among the runs")  # fmt: skip
    add("--full", action="store_true", help="check_data: decode every image, not its header alone")
    add("--skip-unreadable", action="store_true", help="with --input: leave out files that are no "
        "radiographs, and name them")  # fmt: skip
    add("--folds", type=_fold, nargs="+", help="generate_predictions: combine these folds, and "
        "all epochs of --epoch, into one ensemble")  # fmt: skip
    add("--tta", choices=("hflip",), help="generate_predictions: show the mirrored image as well")
    add("--combine", choices=("percentile", "mean"), default="percentile",
        help="how an ensemble combines the sizes of boxes")  # fmt: skip
    add("--k", type=float, default=0.9, help="sizes of an ensemble: p20 + k (p20 - p80); the "
        "paper's text says 1.6")  # fmt: skip
    add("--overlays", action="store_true", help="with --input: draw the boxes over the images")
    add("--threshold", type=float, help="score x 5 over which a box goes into a submission; by "
        "default the best of check_metric")  # fmt: skip
    add("--nms", type=_share, default=0.05, help="IoU over which the weaker of two boxes goes")
    add("--num-images", type=_positive, default=24, help="test_model: how many pictures")
    add("--list-models", action="store_true", help="print the experiments and stop")
    add("--overwrite", action="store_true", help="make predictions again that are there already")
    return parser.parse_args()


def _natural(text: str) -> int:
    return _at_least(_whole(text), 0)


def _positive(text: str) -> int:
    return _at_least(_whole(text), 1)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _at_least(value: int, least: int) -> int:
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value


def _fold(text: str) -> int:
    fold = _whole(text)
    if not 0 <= fold < N_FOLDS:
        raise argparse.ArgumentTypeError(f"{fold}: there are folds 0 to {N_FOLDS - 1}")
    return fold


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 10:
        raise argparse.ArgumentTypeError(f"{text} is not a learning rate; 1e-5 is the paper's")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _yes_or_no(text: str) -> bool:
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not True or False")
    return values[text.lower()]
