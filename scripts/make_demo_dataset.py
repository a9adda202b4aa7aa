"""Make a synthetic stand-in for the challenge's archive; command line.

The real archive needs an account. This one has its file names, columns, DICOM tags and statistics
of classes and boxes, with drawn chests (`scripts/phantoms.py`): the whole chain can be tried.
"""

from __future__ import annotations  # types of modules that load late

import argparse
import json
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from src.system.command_line import CommandParser, natural, report_errors
from src.system.errors import InputError
from src.system.files import real_path, write_csv
from src.system.processes import worker_errors, worker_pool

if TYPE_CHECKING:
    import numpy as np

    from scripts.phantoms import Box

GOLDEN_RATIO = (5**0.5 - 1) / 2
TRAIN, TEST = "train", "test"
PIXEL_SPACINGS = (0.139, 0.143, 0.168, 0.171)  # mm; the commonest of the real files
JPEG_QUALITY = 84  # about 110 kB an image, as the real files
LABEL_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
RECORD_NAME = "demo_dataset.json"  # the arguments; it marks a complete folder
RECORD_VERSION = 1  # raise it when the same arguments give other files


@dataclass(frozen=True)
class Case:
    """One image's rows in the tables."""

    patient_id: str
    category: str
    boxes_xywh: list[Box]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parse_arguments(argv)
    out_dir = real_path(Path(args.out))
    record = {"version": RECORD_VERSION, "seed": args.seed, TRAIN: args.n_train, TEST: args.n_test}
    with report_errors():
        if _is_complete(out_dir, record):
            print(f"{out_dir}: already made with these arguments, nothing to do")
            return
        _check_free(out_dir)
        _make(out_dir, record, args.num_workers)
        _describe(out_dir, args.n_train, args.n_test)


def pick_class(rng: np.random.Generator, index: int) -> str:
    """Return the class of image `index`: balanced in every run of images, whatever their number.

    Args:
        rng: the generator of the split; the same state for every index.
        index: the image's place in its split.
    """
    from scripts.phantoms import CLASS_SHARES

    # Multiples of the golden ratio fill 0..1 evenly, so the counts of the classes are close to
    # their shares in a small set too, and an image's class does not depend on the set's size.
    point = (rng.random() + index * GOLDEN_RATIO) % 1
    for category, share in CLASS_SHARES.items():
        if point < share:
            return category
        point -= share
    return category


def write_case(image_dir: Path, seed: int, split: str, index: int) -> Case:
    """Draw one image and write it as DICOM; depends on (seed, split, index) alone.

    Args:
        image_dir: folder of the split's images.
        seed: of the data set, 0 or more.
        split: "train" or "test".
        index: the image's place in its split.

    Returns:
        The image's rows in the tables.
    """
    import cv2
    import numpy as np

    from scripts.phantoms import draw_phantom

    cv2.setNumThreads(1)  # the images are the parallel part
    split_seed = [seed, (TRAIN, TEST).index(split)]
    rng = np.random.default_rng([*split_seed, index + 1])
    category = pick_class(np.random.default_rng([*split_seed, 0]), index)
    patient_id, *uids = (str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(4))
    view, sex = str(rng.choice(["PA", "AP"])), str(rng.choice(["M", "F"], p=[0.57, 0.43]))
    tags: dict[str, str | list[float]] = {
        "PatientName": patient_id,
        "PatientID": patient_id,
        "PatientSex": sex,
        "PatientAge": str(int(np.clip(rng.normal(47, 17), 2, 92))),
        "SeriesDescription": f"view: {view}",
        "ViewPosition": view,
        "PixelSpacing": [float(rng.choice(PIXEL_SPACINGS))] * 2,
    }
    for name, value in zip(("SOP", "Study", "Series"), uids, strict=True):
        tags[f"{name}InstanceUID"] = f"2.25.{uuid.UUID(value).int}"
    phantom = draw_phantom(rng, category, view=view, sex=sex)
    _write_dicom(image_dir / f"{patient_id}.dcm", phantom.pixels, tags)
    return Case(patient_id, category, phantom.boxes_xywh)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("Make a synthetic stand-in for the challenge's archive.")
    parser.add_argument("--out", required=True, help="folder to make; it must be new or empty")
    parser.add_argument("--n-train", type=natural, default=240, help="training images")
    parser.add_argument("--n-test", type=natural, default=24, help="test images")
    parser.add_argument("--seed", type=natural, default=0, help="0 or more")
    n_workers = min(4, os.cpu_count() or 1)
    parser.add_argument(
        "--num-workers", type=natural, default=n_workers, help="processes; 0: this one"
    )
    return parser.parse_args(argv)


def _is_complete(out_dir: Path, record: dict[str, int]) -> bool:
    """Tell whether the folder was made with these arguments and still has all its files."""
    record_path = out_dir / RECORD_NAME
    if not record_path.is_file() or record_path.read_text() != json.dumps(record):
        return False
    tables = all((out_dir / name).is_file() for name in _table_names())
    return tables and all(
        len(list(_image_dir(out_dir, split).glob("*.dcm"))) == record[split]
        for split in (TRAIN, TEST)
    )


def _check_free(out_dir: Path) -> None:
    """Refuse what could not be replaced in one step.

    Raises:
        InputError: the folder holds something else, is no folder or is a mount point.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir} is a file; --out takes a new folder")
    if out_dir.exists() and any(out_dir.iterdir()):
        raise InputError(
            f"{out_dir} is not empty and no complete demo made with these arguments; "
            "remove it or give another --out"
        )
    if out_dir.is_mount():
        raise InputError(f"{out_dir} is a mount point; give a folder inside it")


def _make(out_dir: Path, record: dict[str, int], n_workers: int) -> None:
    """Write everything beside the folder, then give it its name."""
    from src.system.files import new_folder

    with new_folder(out_dir) as folder:
        cases = {
            split: list(_write_images(folder, record["seed"], split, record[split], n_workers))
            for split in (TRAIN, TEST)
        }
        _write_tables(folder, cases[TRAIN], cases[TEST])
        (folder / RECORD_NAME).write_text(json.dumps(record))


def _write_images(
    out_dir: Path, seed: int, split: str, n_images: int, n_workers: int
) -> Iterator[Case]:
    """Write the images of a split, in processes of their own if asked to, and yield their rows."""
    from tqdm import tqdm

    image_dir = _image_dir(out_dir, split)
    image_dir.mkdir()
    write = partial(write_case, image_dir, seed, split)
    with tqdm(total=n_images, desc=f"{split} images", unit="image") as bar:
        if min(n_workers, n_images) < 2:
            for case in map(write, range(n_images)):
                bar.update()
                yield case
            return
        with worker_errors(), worker_pool(min(n_workers, n_images)) as pool:
            for case in pool.map(write, range(n_images), chunksize=4):
                bar.update()
                yield case


def _write_dicom(path: Path, pixels: np.ndarray, tags: dict[str, str | list[float]]) -> None:
    """Write (1024, 1024) uint8 pixels as the challenge's files are: CR, JPEG Baseline."""
    import pydicom
    import simplejpeg
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

    jpeg = simplejpeg.encode_jpeg(
        pixels[..., None], quality=JPEG_QUALITY, colorspace="GRAY", colorsubsampling="Gray"
    )
    constant = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": SecondaryCaptureImageStorage,
        "StudyDate": "19010101",
        "StudyTime": "000000.00",
        "Modality": "CR",
        "ConversionType": "WSD",
        "BodyPartExamined": "CHEST",
        "SeriesNumber": "1",
        "InstanceNumber": "1",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "LossyImageCompression": "01",
        "LossyImageCompressionMethod": "ISO_10918_1",
        "PixelData": encapsulate([jpeg]),
    }
    empty = ("AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "StudyID")
    dataset = pydicom.Dataset()
    with pydicom.config.disable_value_validation():  # "47" is no valid age, but theirs are so
        for name, value in (
            constant | tags | dict.fromkeys((*empty, "PatientOrientation"), "")
        ).items():
            setattr(dataset, name, value)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        content = BytesIO()  # pydicom would put its traceback into the message of a full disk
        dataset.save_as(content, enforce_file_format=True)
    path.write_bytes(content.getvalue())


def _image_dir(out_dir: Path, split: str) -> Path:
    return out_dir / f"stage_2_{split}_images"


def _table_names() -> tuple[str, str, str, str]:
    names = ("train_labels", "detailed_class_info", "sample_submission", "test_labels")
    labels, classes, submission, truth = (f"stage_2_{name}.csv" for name in names)
    return labels, classes, submission, truth


def _write_tables(out_dir: Path, train: list[Case], test: list[Case]) -> None:
    """Write the archive's three tables and the truth of the test images."""
    labels_name, classes_name, submission_name, truth_name = _table_names()
    write_csv(out_dir / labels_name, LABEL_COLUMNS, _label_rows(train))
    write_csv(out_dir / truth_name, LABEL_COLUMNS, _label_rows(test))
    classes = [
        (case.patient_id, case.category)
        for case in train
        for _ in range(max(1, len(case.boxes_xywh)))
    ]
    write_csv(out_dir / classes_name, ("patientId", "class"), classes)
    guesses = [(case.patient_id, "0.5 0 0 100 100") for case in test]
    write_csv(out_dir / submission_name, ("patientId", "PredictionString"), guesses)


def _label_rows(cases: list[Case]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for case in cases:
        rows += [(case.patient_id, *box, 1) for box in case.boxes_xywh]
        if not case.boxes_xywh:
            rows.append((case.patient_id, "", "", "", "", 0))
    return rows


def _describe(out_dir: Path, n_train: int, n_test: int) -> None:
    labels_name, classes_name, submission_name, truth_name = _table_names()
    print(f"{out_dir}")
    print(f"  {_image_dir(out_dir, TRAIN).name}/ {n_train} images: {labels_name}, {classes_name}")
    print(f"  {_image_dir(out_dir, TEST).name}/ {n_test} images: {submission_name}, {truth_name}")


if __name__ == "__main__":
    main()
