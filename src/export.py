"""Export a trained run to ONNX, decoding included, and hold the file against PyTorch.

`python src/export.py output/demo_fold_0 --out model.onnx` writes a graph from `images` (batch, 1,
S, S), float32 in [0, 1], to

- `boxes_xyxy` (batch, K, 4), pixels of the input, best first,
- `scores` (batch, K), descending, 0 where there is no box,
- `class_probs` (batch, 3).

The batch may have any size. By default K is 1,000, as many candidates as the project keeps of an
image: then the graph gives what `find_candidates` and `suppress` give. The file's metadata say how
an image becomes an input, and what the boxes mean.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import config
from src.prediction.presets import DEFAULT_THRESHOLD, NMS_IOU
from src.system.command_line import (
    CommandParser,
    natural,
    not_negative,
    positive,
    report_errors,
    share,
)
from src.system.errors import InputError

if TYPE_CHECKING:  # what takes seconds to import is not needed for `--help`
    from torch import Tensor

    from src.experiments.experiment import Experiment
    from src.experiments.runs import Run
    from src.onnx_export.padded import PaddedDetector

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4  # float32 through a hundred layers is off by some 1e-6
MAX_BOXES = 1000  # postprocess.MAX_CANDIDATES

PREPROCESSING = (
    "Grey in [0, 1], bright where bone is; 8-bit files: value / 255. The whole image, or its "
    "central square of source_crop pixels, is squeezed into img_size x img_size without smoothing: "
    "pixel (x, y) is the bilinear value at (left + x * shown_width / img_size, top + y * "
    "shown_height / img_size) of the file, where left and top are the corner of what is shown."
)
DECODING = (
    "boxes_xyxy: pixels of the input, x to the right; in the file x * shown_width / img_size + "
    "left. scores: 0 where there is no box. A box counts where scores * 5 > threshold."
)


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        _check_packages()
        export(arguments)


def export(arguments: argparse.Namespace) -> None:
    """Write the graph if it passes the check."""
    from src.actions.resolve import default_epoch
    from src.experiments.runs import load_run
    from src.experiments.table import get_experiment
    from src.onnx_export.check import check_graph
    from src.onnx_export.graph import write_graph
    from src.system.files import replaced_file

    run = load_run(arguments.run)
    experiment = get_experiment(run.model)
    epoch = default_epoch(run) if arguments.epoch is None else arguments.epoch
    detector = _load_detector(run, experiment, epoch, arguments)
    n_images, images = _check_images(arguments.check_images, experiment)
    path = arguments.out or run.dir / f"{epoch:03}.onnx"
    with replaced_file(path) as temporary:
        write_graph(temporary, detector, _describe(run, experiment, epoch, detector))
        check = check_graph(temporary, detector, images, n_images)
        print(*check.lines(), sep="\n")
        check.require(arguments.tolerance)
    print(path)


def _load_detector(
    run: Run, experiment: Experiment, epoch: int, arguments: argparse.Namespace
) -> PaddedDetector:
    import torch

    from src.experiments.checkpoints import load_checkpoint
    from src.experiments.networks import checkpoint_path, load_network
    from src.onnx_export.padded import PaddedDetector

    path = checkpoint_path(run, epoch, None)
    network = load_network(experiment, load_checkpoint(path, run.model), path)
    size = (experiment.img_size, experiment.img_size)
    detector = PaddedDetector(
        network,
        network.anchors(torch.empty(1, 1, *size)),
        size,
        nms_iou=None if arguments.without_nms else arguments.nms_iou,
        max_boxes=arguments.max_boxes,
    )
    return detector.eval()


def _check_images(place: Path | None, experiment: Experiment) -> tuple[int, Iterable[Tensor]]:
    """Prepare images to look at, and say how many; few files come several times."""
    from src.onnx_export.check import N_FOR_ALL_SIZES, synthetic_images

    if place is None:
        return N_FOR_ALL_SIZES, synthetic_images((experiment.img_size, experiment.img_size))
    from src.datasets.test_dataset import TestDataset
    from src.experiments.experiment_file import sample_options
    from src.radiographs.image_files import find_image_files, split_unreadable
    from src.structures import images_as_float

    files, unreadable = split_unreadable(find_image_files(place), 1)
    if unreadable:
        raise InputError(f"--check-images: {unreadable[0].cause}")
    dataset = TestDataset(files, sample_options(experiment))
    n_images = max(len(dataset), N_FOR_ALL_SIZES)
    return n_images, (images_as_float(dataset[i % len(dataset)].image) for i in range(n_images))


def _describe(
    run: Run, experiment: Experiment, epoch: int, detector: PaddedDetector
) -> dict[str, str]:
    """Say what a user of the file has to know: texts as they are, everything else as JSON."""
    from src.retinanet.candidates import MAX_CANDIDATES, MIN_SCORE, MIN_SHARE_OF_TOP
    from src.scoring.sweep import saved_threshold
    from src.structures import CLASS_NAMES

    threshold = saved_threshold(run.scores_path, epoch, "score")
    facts = {
        "experiment": run.model,
        "fold": run.fold,
        "tag": run.tag,
        "epoch": epoch,
        "encoder": experiment.encoder,
        "img_size": experiment.img_size,
        "source_crop": experiment.source_crop,
        "preprocessing": PREPROCESSING,
        "decoding": DECODING,
        "threshold": DEFAULT_THRESHOLD if threshold is None else threshold,
        "nms_iou": detector.nms_iou,
        "max_boxes": detector.max_boxes,
        "max_candidates": MAX_CANDIDATES,
        "min_score": MIN_SCORE,
        "min_share_of_top": MIN_SHARE_OF_TOP,
        "class_names": CLASS_NAMES,
    }
    return {
        name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()
    }


def _check_packages() -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"exporting needs {', '.join(missing)}: pip install -r "
            f"{config.ROOT / 'requirements-export.txt'}"
        )


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser("Export a trained run to ONNX and hold the file against PyTorch.")
    add = parser.add_argument
    add("run", type=Path, help="folder of a run, such as output/demo_fold_0")
    add("--epoch", type=natural, help="by default the best of check_metric, or the last")
    add("--out", type=Path, help="by default <epoch>.onnx in the run's folder")
    nms = parser.add_mutually_exclusive_group()
    nms.add_argument("--nms-iou", type=share, default=NMS_IOU, help="IoU over which the graph "
                     "drops the weaker of two boxes")  # fmt: skip
    nms.add_argument("--without-nms", action="store_true", help="leave overlapping boxes to the "
                     "user of the file")  # fmt: skip
    add("--max-boxes", type=positive, default=MAX_BOXES, help="K, the boxes of an image; fewer "
        "than the default cut off the weakest")  # fmt: skip
    add("--check-images", type=Path, help="a DICOM, PNG or JPEG file, or a folder of them, to hold "
        "the file against PyTorch; by default synthetic images")  # fmt: skip
    add("--tolerance", type=not_negative, default=TOLERANCE, help="largest difference that passes, "
        "of scores, deltas, probabilities, and boxes as shares of the image's side")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.max_boxes > MAX_BOXES:
        parser.error(f"--max-boxes {arguments.max_boxes}: at most {MAX_BOXES} candidates are kept")
    return arguments


if __name__ == "__main__":
    main()
