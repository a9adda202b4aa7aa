"""Export a trained run: to ONNX, or as a folder to share.

`python src/export.py output/demo_fold_0 --share demo_model` writes one file of weights that holds
all that prediction needs, and its model card.

`python src/export.py output/demo_fold_0 --out model.onnx` writes a graph, decoding included, and
compares it with PyTorch. It goes from `images` (batch, 1, S, S), float32 in [0, 1], to

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
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import config
from src.experiments.experiment import Experiment
from src.experiments.experiment_file import sample_options
from src.experiments.runs import Run, load_run, require_weights
from src.prediction.image_groups import read_groups
from src.prediction.presets import NMS_IOU, Postprocess
from src.radiographs.image_files import split_unreadable
from src.radiographs.image_index import ImageFile, index_images
from src.scoring.sweep import Choice, choose_epoch
from src.structures import MAX_CANDIDATES, images_as_float
from src.system.command_line import (
    CommandParser,
    fraction,
    natural,
    not_negative,
    positive,
    report_errors,
)
from src.system.errors import InputError
from src.system.files import new_folder, replaced_file, write_text

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4  # float32 through a hundred layers is off by some 1e-6

GREY_VALUES = {
    "viewer": (
        "Grey in [0, 1], bright where bone is; plain 8-bit files: value / 255. Other files as a "
        "DICOM viewer shows them: modality LUT or rescale, VOI LUT or window (the first), without "
        "either from the .5 to the 99.5 percentile of the values; MONOCHROME1 and the presentation "
        "LUT shape INVERSE invert once; padding is black."
    ),
    "range": (
        "Grey in [0, 1], bright where bone is; plain 8-bit files: value / 255. Other files from "
        "their darkest to their brightest pixel; MONOCHROME1 inverts."
    ),
}
_PART = (
    "The input shows the whole image; with fit pad the square around it, black where no image is; "
    "with a source_crop the central square of as many pixels. What is shown becomes img_size x "
    "img_size "
)
_SUBSAMPLE = (
    "without smoothing: pixel (x, y) is the bilinear value at (left + x * "
    "shown_width / img_size, top + y * shown_height / img_size) of the file, where left and top "
    "are the corner of what is shown"
)
_AREA = (
    "by the mean over the area of each pixel: the file is resized by img_size "
    "/ shown_width and img_size / shown_height (OpenCV's INTER_AREA), then what is shown is cut "
    "out of its centre; what is smaller than img_size is enlarged bilinearly. left and top are the "
    "corner of what is shown, in the file"
)
SHOWN = {
    "subsample": f"{_PART}{_SUBSAMPLE}.",
    "area": f"{_PART}{_AREA}.",
    "auto": (
        f"{_PART}{_AREA}. Files of 1024 x 1024 pixels of which a whole number makes one of "
        f"img_size become it {_SUBSAMPLE}."
    ),
}


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        if arguments.share is None:
            _check_packages()
        run = load_run(arguments.run)
        choice = _choose_epoch(run, arguments.epoch)
        if arguments.share is not None:
            share(run, choice, arguments.share, arguments.licence, arguments.groups)
            return
        export(
            run,
            choice,
            arguments.out or run.dir / f"{choice.epoch:03}.onnx",
            nms_iou=None if arguments.without_nms else arguments.nms_iou,
            max_boxes=arguments.max_boxes,
            tolerance=arguments.tolerance,
            check_images=arguments.check_images,
        )


def export(
    run: Run,
    choice: Choice,
    path: Path,
    *,
    nms_iou: float | None,
    max_boxes: int,
    tolerance: float,
    check_images: Path | None = None,
) -> None:
    """Write a run's network as an ONNX graph if it passes the check; say what the check found.

    Args:
        choice: the epoch, and its best threshold if that is known.
        nms_iou: IoU over which the graph drops the weaker of two boxes; None keeps both.
        max_boxes: K, the boxes of an image.
        tolerance: the largest difference from PyTorch that passes.
        check_images: a file or folder of images to check with; None takes synthetic ones.

    Raises:
        InputError: there is no such checkpoint, the images cannot be read, or the check fails.
    """
    # PyTorch and the exporter take seconds to import, and `--help` does not wait for them.
    from src.datasets.test_dataset import TestDataset
    from src.experiments.checkpoints import load_checkpoint
    from src.experiments.networks import load_network
    from src.onnx_export.check import N_FOR_ALL_SIZES, check_graph, synthetic_images
    from src.onnx_export.graph import write_graph
    from src.onnx_export.padded import PaddedDetector
    from src.retinanet.anchors import make_anchors

    weights = run.find_checkpoint(choice.epoch) or run.checkpoint_path(choice.epoch)
    checkpoint = load_checkpoint(require_weights(weights), run.model)
    experiment = checkpoint.facts.settings
    network = load_network(checkpoint, weights)
    size = (experiment.img_size, experiment.img_size)
    anchors = make_anchors(size, experiment.pyramid_levels, experiment.anchor_shapes)
    detector = PaddedDetector(
        network, anchors, size, nms_iou=nms_iou, max_boxes=max_boxes, limits=experiment.limits
    ).eval()
    if check_images is None:
        images, n_images = iter(synthetic_images(size)), N_FOR_ALL_SIZES
    else:
        dataset = TestDataset(_readable_files(check_images), sample_options(experiment))
        n_images = max(len(dataset), N_FOR_ALL_SIZES)  # few files come several times
        images = (images_as_float(dataset[i % len(dataset)].image) for i in range(n_images))
    facts = _describe_run(run, experiment, choice) | detector.facts()
    with replaced_file(path) as temporary:
        write_graph(temporary, detector, _as_texts(facts))
        check = check_graph(temporary, detector, images, n_images)
        print(*check.lines(), sep="\n")
        check.require(tolerance)
    print(path)


def share(run: Run, choice: Choice, folder: Path, licence: str | None, groups: Path | None) -> None:
    """Write the weights of an epoch and their model card, which anybody can use without the run.

    Args:
        licence: of the weights; None where nobody states it.
        groups: a table whose groups of images the card describes one by one.

    Raises:
        InputError: there is no such checkpoint, the table is wrong, or the folder holds something.
    """
    from src.experiments.shared_weights import SHARED_NAME, write_shared_weights
    from src.visualizations.model_card import write_card

    table = {} if groups is None else read_groups(groups)
    with new_folder(folder) as temporary:
        best = None if choice.best is None else asdict(choice.best)
        facts = write_shared_weights(
            run, choice.epoch, temporary / SHARED_NAME, best=best, licence=licence
        )
        card = write_card(run, choice, facts, file_name=SHARED_NAME, group_table=table)
        write_text(temporary / "README.md", card)
    print(folder / SHARED_NAME, folder / "README.md", sep="\n")


def _choose_epoch(run: Run, epoch: int | None) -> Choice:
    saved = run.epochs_with_checkpoint()
    if not saved:
        raise InputError(f"{run.dir}: holds no checkpoints; --action train makes them")
    return choose_epoch(run.scores_path, saved, epoch)


def _readable_files(place: Path) -> list[ImageFile]:
    index = index_images(place)
    index.warn()
    files, unreadable = split_unreadable(index.files(), 1)
    if unreadable:
        raise InputError(f"--check-images: {unreadable[0].cause}")
    return files


def _describe_run(run: Run, experiment: Experiment, choice: Choice) -> dict[str, Any]:
    """Say where the network comes from, and how an image becomes its input."""
    return {
        "experiment": run.model,
        "fold": run.fold,
        "tag": run.tag,
        "epoch": choice.epoch,
        "encoder": experiment.encoder,
        "img_size": experiment.img_size,
        "source_crop": experiment.source_crop,
        "fit": experiment.fit,
        "grey": experiment.grey,
        "reduction": experiment.reduction,
        "preprocessing": f"{GREY_VALUES[experiment.grey]} {SHOWN[experiment.reduction]}",
        "threshold": choice.fill(Postprocess()).threshold,
    }


def _as_texts(facts: dict[str, Any]) -> dict[str, str]:
    """Leave texts as they are, and write everything else as JSON."""
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
    parser = CommandParser("Export a trained run: to ONNX, or as a folder to share.")
    add = parser.add_argument
    add("run", type=Path, help="folder of a run, such as output/demo_fold_0")
    add("--share", type=Path, metavar="FOLDER", help="write the weights and a model card there "
        "instead of an ONNX file")  # fmt: skip
    add("--licence", help="of the weights that are shared, as SPDX names it, such as mit")
    add("--groups", type=Path, help="table of patientId and columns whose values are groups, for "
        "the numbers of each in the model card")  # fmt: skip
    add("--epoch", type=natural, help="by default the best of check_metric, or the last")
    add("--out", type=Path, help="by default <epoch>.onnx in the run's folder")
    nms = parser.add_mutually_exclusive_group()
    nms.add_argument("--nms-iou", type=fraction, default=NMS_IOU, help="IoU over which the graph "
                     "drops the weaker of two boxes")  # fmt: skip
    nms.add_argument("--without-nms", action="store_true", help="leave overlapping boxes to the "
                     "user of the file")  # fmt: skip
    add("--max-boxes", type=positive, default=MAX_CANDIDATES, help="K, the boxes of an image; "
        "fewer than the default cut off the weakest")  # fmt: skip
    add("--check-images", type=Path, help="a DICOM, PNG or JPEG file, or a folder of them, to "
        "compare the file with PyTorch on; by default synthetic images")  # fmt: skip
    add("--tolerance", type=not_negative, default=TOLERANCE, help="largest difference that passes, "
        "of scores, deltas, probabilities, and boxes as shares of the image's side")  # fmt: skip
    arguments = parser.parse_args()
    for name in ("licence", "groups"):
        if arguments.share is None and getattr(arguments, name) is not None:
            parser.error(f"--{name} needs --share")
    for name in ("out", "nms_iou", "without_nms", "max_boxes", "check_images", "tolerance"):
        if arguments.share is not None and getattr(arguments, name) != parser.get_default(name):
            flag = name.replace("_", "-")
            parser.error(f"--share cannot be combined with --{flag}, which is of an ONNX file")
    if arguments.max_boxes > MAX_CANDIDATES:
        parser.error(
            f"--max-boxes {arguments.max_boxes}: at most {MAX_CANDIDATES} candidates are kept"
        )
    return arguments


if __name__ == "__main__":
    main()
