"""Make the challenge's label files of another data set's labels; command line.

    python scripts/import_labels.py annotations.json --out data
    python scripts/import_labels.py train.csv --out data --findings Consolidation Infiltration
    python scripts/import_labels.py boxes.csv --out data --columns patientId=file x=left y=top \
        width=width height=height

A .json file is COCO's; a CSV is VinDr-CXR's, unless --columns names its columns. The images stay
where they are: they belong into the folder train/ of the data folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from src.datasets.data_folder import DataFolder
from src.structures import CLASS_NAMES
from src.system.command_line import CommandParser, factor, natural, positive, report_errors
from src.system.errors import InputError
from src.system.files import write_csv

if TYPE_CHECKING:
    from scripts.label_sources import LabelSource
    from scripts.label_truths import ImageTruth

LABEL_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
CLASS_COLUMNS = ("patientId", "class")


def main() -> None:
    arguments = _parse_arguments()
    with report_errors():
        _import(arguments)


def _import(arguments: argparse.Namespace) -> None:
    from scripts.label_truths import make_truths, settle_boxes

    folder = DataFolder(arguments.out)
    for path in (folder.labels_path, folder.classes_path):
        if path.exists():
            raise InputError(f"{path}: is there already; it is not replaced")
    source = _read(arguments.labels, arguments.columns)
    sizes = dict(source.sizes)
    if arguments.images is not None:
        found = _sizes_of_images(arguments.images, arguments.num_workers)
        sizes |= found
        missing = sorted(set(source.patient_ids) - set(found))
        if missing:
            warnings.warn(
                f"{len(missing)} images have no file in {arguments.images}, the first is "
                f"{missing[0]}",
                stacklevel=1,
            )
        if arguments.unlisted_normal:
            for patient in found:
                source.add_image("images", patient)
    rows = settle_boxes(source, sizes, shares=arguments.shares, clip=arguments.clip)
    truths = make_truths(source, rows, arguments.findings, arguments.rule)
    faults = [fault for own in source.faults.values() for fault in own]
    for fault in faults:
        print(fault)
    sys.stdout.flush()  # the verdict comes last
    if faults and not arguments.skip_faulty:
        raise InputError(
            f"{arguments.labels}: {len(faults)} rows are wrong, nothing was written; "
            f"--skip-faulty leaves out their images"
        )
    truths = {patient: truth for patient, truth in truths.items() if patient not in source.faults}
    if not truths:
        raise InputError(f"{arguments.labels}: no image is left")
    _write(folder, truths, source.groups)


def _read(path: Path, columns: dict[str, str] | None) -> LabelSource:
    from scripts.label_sources import VINDR_COLUMNS, read_coco_labels, read_label_table

    if path.suffix.lower() == ".json":
        if columns is not None:
            raise InputError("--columns is for a CSV, not for COCO's JSON")
        return read_coco_labels(path)
    return read_label_table(path, VINDR_COLUMNS if columns is None else columns)


def _sizes_of_images(images_dir: Path, n_workers: int) -> dict[str, tuple[int, int]]:
    """Read width and height of every image below a folder; other files do not matter."""
    from scripts.label_sources import size_of_image
    from src.challenge.coco import patient_of_name
    from src.radiographs.image_index import index_images
    from src.system.processes import map_files

    files = index_images(images_dir).files()
    sizes = map_files(size_of_image, [file.path for file in files], n_workers=n_workers)
    return {
        patient_of_name(file.id): size
        for file, size in zip(files, sizes, strict=True)
        if size is not None
    }


def _write(folder: DataFolder, truths: Mapping[str, ImageTruth], groups: Mapping[str, str]) -> None:
    columns = (*LABEL_COLUMNS, "groupId") if groups else LABEL_COLUMNS
    rows = [
        (*row, groups.get(patient, "")) if groups else row
        for patient, truth in truths.items()
        for row in _label_rows(patient, truth)
    ]
    classes = ((patient, CLASS_NAMES[truth.category]) for patient, truth in truths.items())
    write_csv(folder.classes_path, CLASS_COLUMNS, classes)
    write_csv(folder.labels_path, columns, rows)
    counts = [
        f"{sum(truth.category == k for truth in truths.values())} {name}"
        for k, name in enumerate(CLASS_NAMES)
    ]
    n_boxes = sum(len(truth.boxes_xyxy) for truth in truths.values())
    print(f"{len(truths)} images ({', '.join(counts)}), {n_boxes} boxes")
    print(folder.labels_path, folder.classes_path, sep="\n")


def _label_rows(patient: str, truth: ImageTruth) -> Iterator[tuple[object, ...]]:
    for x, y, right, bottom in truth.boxes_xyxy:
        yield patient, x, y, round(right - x, 3), round(bottom - y, 3), 1
    if not truth.boxes_xyxy:
        yield patient, "", "", "", "", 0


def _column(text: str) -> tuple[str, str]:
    from scripts.label_sources import COLUMNS

    name, is_pair, column = text.partition("=")
    if not is_pair or name not in COLUMNS or not column:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=COLUMN with a NAME of {', '.join(COLUMNS)}"
        )
    return name, column


def _parse_arguments() -> argparse.Namespace:
    parser = CommandParser("Make the challenge's label files of another data set's labels.")
    add = parser.add_argument
    add("labels", type=Path, help="COCO's JSON, VinDr-CXR's CSV, or with --columns any CSV")
    add("--out", type=Path, required=True, help="the data folder that gets the label files")
    add("--findings", nargs="+", help="labels that count as a box (default: all)")
    add("--columns", type=_column, nargs="+", metavar="NAME=COLUMN",
        help="patientId, x, y, x2 and y2 or width and height; label, reader, groupId (images of "
        "one patient), image_width, image_height")  # fmt: skip
    add("--shares", action="store_true", help="boxes are shares of the image's sides, not pixels")
    add("--readers", choices=("all", "intersection", "agreement"), default="all",
        help="which boxes of several readers count")  # fmt: skip
    add("--min-readers", type=positive, help="with --readers agreement (default: 2)")
    add("--iou", type=factor, help="overlap of two readers' boxes that are one (default: 0.5)")
    add("--images", type=Path, help="folder of the images, for their sizes")
    add("--unlisted-normal", action="store_true", help="images without a row are normal")
    add("--clip", action="store_true", help="cut off what leaves the image")
    add("--skip-faulty", action="store_true", help="leave out images with a wrong row")
    add("--num-workers", type=natural, default=min(4, os.cpu_count() or 1), help="processes")
    arguments = parser.parse_args()
    _check_flags(parser, arguments)
    return arguments


def _check_flags(parser: CommandParser, arguments: argparse.Namespace) -> None:
    from scripts.label_truths import ReaderRule

    if arguments.min_readers is not None and arguments.readers != "agreement":
        parser.error("--min-readers needs --readers agreement")
    if arguments.iou is not None and arguments.readers == "all":
        parser.error("--iou needs --readers intersection or agreement")
    if arguments.unlisted_normal and arguments.images is None:
        parser.error("--unlisted-normal needs --images")
    if arguments.columns is not None:
        names = [name for name, _ in arguments.columns]
        if len(set(names)) < len(names):
            parser.error("--columns names a column twice")
        arguments.columns = dict(arguments.columns)
    arguments.rule = ReaderRule(arguments.readers, arguments.min_readers or 2, arguments.iou or 0.5)


if __name__ == "__main__":
    main()
