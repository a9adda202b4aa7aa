"""Every reader of files that may be broken, with sound files to start from."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import cv2
import numpy as np
import torch
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from safetensors.torch import save
from torch import Tensor

from scripts.dicom_headers import read_header
from scripts.label_sources import VINDR_COLUMNS, LabelSource, read_coco_labels, read_label_table
from scripts.label_truths import ReaderRule, make_truths, settle_boxes
from scripts.radiograph_encodings import ENCODINGS
from scripts.rsna_release import Findings, read_annotations
from src.challenge.coco import read_coco, read_images
from src.challenge.leaderboard import score_submission
from src.challenge.submission_check import check_submission
from src.datasets.annotations import read_classes, read_label_files
from src.datasets.data_folder import ImageFolder
from src.datasets.fingerprint import FileState
from src.datasets.folds import read_folds
from src.datasets.pixel_cache import PAGE, CachedImage, open_cache, write_index
from src.datasets.tables import read_sample_ids
from src.experiments.checkpoints import Checkpoint, load_checkpoint
from src.experiments.history import read_history
from src.experiments.run_facts import read_run_facts
from src.experiments.runs import read_description
from src.prediction.coco_results import read_results
from src.prediction.outputs import describe_networks
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import load_predictions
from src.prediction.presets import Postprocess
from src.prediction.provenance import Combination, NetworkId
from src.radiographs.dicom import image_size, read_facts, read_image
from src.radiographs.image_files import read_any_image
from src.radiographs.pixels import as_float
from src.retinanet.encoders.encoder import Encoder
from src.retinanet.encoders.weights import load_encoder_weights
from src.scoring.run_results import RunResult
from src.scoring.run_tables import RunRow, run_columns
from src.scoring.sweep import ScoredRun, Sweep, load_sweep
from src.structures import CLASS_NAMES
from src.system.errors import InputError
from src.visualizations.report_settings import summarise_experiment, write_settings
from src.visualizations.sortable_table import write_sortable
from tests import dicom_files
from tests.fuzz.mutations import mutate, mutate_archive, mutate_end, mutate_png
from tests.made_checkpoints import as_version_1, make_checkpoint, make_state
from tests.made_predictions import random_predictions
from tests.paths import SHARED

N_REAL_LUNGS = 3
Mutation = Callable[[bytes, bytes, Random], bytes]


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        read: takes a path; gives what it likes, or raises an InputError.
        seeds: makes sound files in a folder and yields their contents.
        name: of the file that is read.
    """

    read: Callable[[Path], object]
    seeds: Callable[[Path], Iterator[bytes]]
    name: str
    mutate: Mutation = mutate


SMALL_ENCODINGS = ("padding of -2000", "window", "window, SIGMOID", "VOI LUT",
                   "modality LUT, descending", "MONOCHROME2, shape INVERSE", "32 bits",
                   "signed, JPEG 2000", "JPEG lossless", "JPEG-LS", "JPEG Extended, scan to 0",
                   "RLE", "big endian without meta header")  # fmt: skip


def make_pictures() -> list[np.ndarray]:
    random = np.random.default_rng(3)
    noise = random.integers(0, 256, (64, 48)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return [noise, smooth, (smooth.astype(np.uint16) * 16), np.zeros((3, 5), np.uint8)]


def dicom_seeds(folder: Path) -> Iterator[bytes]:
    path = folder / "seed.dcm"
    noise, smooth, deep, tiny = make_pictures()
    plain = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian,
             DeflatedExplicitVRLittleEndian)  # fmt: skip
    for syntax in plain:
        for pixels in (noise, deep, tiny, deep.astype(np.int16)):
            tags = {"RescaleSlope": "2", "PatientID": "p", "NumberOfFrames": "1"}
            yield dicom_files.write_dicom(path, pixels, syntax, **tags).read_bytes()
    yield dicom_files.write_dicom(path, np.stack([smooth] * 3, axis=-1)).read_bytes()
    yield dicom_files.write_challenge_dicom(path, smooth).read_bytes()
    streams = {
        JPEGExtended12Bit: dicom_files.encode_jpeg(smooth),
        JPEGLosslessSV1: dicom_files.encode_jpeg_lossless(smooth, 8),
        JPEG2000Lossless: dicom_files.encode_j2k(smooth),
        RLELossless: dicom_files.encode_rle(smooth),
    }
    for syntax, stream in streams.items():
        yield dicom_files.write_stream(path, smooth, syntax, stream).read_bytes()
    yield dicom_files.write_stream(
        path, dicom_files.JPEG_LS_PIXELS, JPEGLSLossless, dicom_files.JPEG_LS_STREAM
    ).read_bytes()
    for name in SMALL_ENCODINGS:
        yield ENCODINGS[name](smooth)


def real_dicom_seeds(folder: Path) -> Iterator[bytes]:
    for path in sorted((SHARED / "dicom_samples").glob("*.dcm")):
        yield path.read_bytes()
    for path in sorted((SHARED / "lungs" / "train").glob("*.dcm"))[:N_REAL_LUNGS]:
        yield path.read_bytes()


def picture_seeds(folder: Path) -> Iterator[bytes]:
    yield ENCODINGS["PNG of 16 bits with 12"](make_pictures()[1])
    for pixels in make_pictures():
        yield cv2.imencode(".png", pixels)[1].tobytes()
    for pixels in make_pictures()[:2]:
        yield cv2.imencode(".jpg", pixels)[1].tobytes()
        yield cv2.imencode(".png", np.dstack([pixels] * 4))[1].tobytes()
        yield cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
        yield cv2.imencode(".jpg", np.dstack([pixels] * 3))[1].tobytes()


def label_rows() -> list[str]:
    with_boxes = [f"p{i},{10 * i}.0,{5 * i},{50 + i},70.5,1,{CLASS_NAMES[2]}" for i in range(6)]
    repeated = [with_boxes[0], f"p0,500,500,20,20,1,{CLASS_NAMES[2]}"]
    return with_boxes + repeated + [f"q{i},,,,,0,{CLASS_NAMES[i % 2]}" for i in range(6)]


def as_table(header: str, rows: list[str], end: str = "\n") -> bytes:
    return (end.join([header, *rows]) + end).encode()


def label_seeds(folder: Path) -> Iterator[bytes]:
    with_class = label_rows()
    plain = [row.rpartition(",")[0] for row in with_class]
    header = "patientId,x,y,width,height,Target"
    yield as_table(header, plain)
    yield as_table(f"{header},class", with_class)
    yield as_table(f"{header},class", with_class, "\r\n")


def class_seeds(folder: Path) -> Iterator[bytes]:
    yield as_table("patientId,class", [f"p{i},{CLASS_NAMES[i % 3]}" for i in range(12)])


def fold_seeds(folder: Path) -> Iterator[bytes]:
    yield as_table("patientId,fold", [f"p{i},{i % 4}" for i in range(12)])
    yield as_table("patientId,class,fold", [f"p{i},Normal,{i % 4}" for i in range(12)])


CACHED = {
    patient: CachedImage(PAGE * (i + 1), 3 + i, 20 - i, FileState(100, 10**18 + i))
    for i, patient in enumerate("abcd")
}


def cache_seeds(folder: Path) -> Iterator[bytes]:
    path = folder / "seed.bin"
    path.write_bytes(bytes(range(256)) * (PAGE // 256) * (1 + len(CACHED)))
    write_index(path, path.stat().st_size, CACHED)
    yield path.read_bytes()


def use_cache(path: Path) -> None:
    """Read all images; what is no cache, or not of these files, is built again."""
    states = {patient: image.state for patient, image in CACHED.items()}
    cache = open_cache(
        path, states, ImageFolder(path.parent, {name: f"{name}.dcm" for name in CACHED})
    )
    if cache is None:
        raise InputError(f"{path}: to be built again")
    for patient, image in cache.images.items():
        if image.offset:
            check_pixels(as_float(cache.read(patient)))


def submission_seeds(folder: Path) -> Iterator[bytes]:
    boxes = "0.9 10 20 30.5 40 0.5 100 100 300 200"
    yield as_table(
        "patientId,PredictionString", [f"p{i},{boxes if i % 2 else ''}" for i in range(9)]
    )
    yield as_table("patientId,PredictionString", [f"p{i}," for i in range(3)], "\r\n")


def check_both_ways(path: Path) -> None:
    sample = path.with_name("sample.csv")
    sample.write_bytes(next(submission_seeds(path.parent)))
    for sample_path in (None, sample):
        for fault in check_submission(path, sample_path).faults:
            assert "\n" not in fault.describe(path)


def score_against_truth(path: Path) -> None:
    truth = path.with_name("truth.csv")
    rows = [f"p{i},10,20,30,40,1" if i % 2 else f"p{i},,,,,0" for i in range(9)]
    truth.write_bytes(as_table("patientId,x,y,width,height,Target", rows))
    result = score_submission(path, truth)
    assert np.isnan(result.score) or 0 <= result.score <= 1
    result.lines()


def prediction_seeds(folder: Path) -> Iterator[bytes]:
    combination = Combination(members=(NetworkId(model="demo", fold=0),), hflip=True, k=0.9)
    for n_images, ensemble in ((1, None), (8, None), (3, combination)):
        predictions = random_predictions(n_images=n_images)
        made_by = replace(predictions.provenance, ensemble=ensemble)
        replace(predictions, provenance=made_by).save(folder / "seed.npz")
        yield (folder / "seed.npz").read_bytes()


def use_predictions(path: Path) -> None:
    """Choose boxes and carry them to the files' pixels."""
    predictions = load_predictions(path)
    chosen = choose_boxes(predictions, Postprocess(gate="score_category"))
    for image in range(len(predictions)):
        predictions.in_file_pixels(image, chosen.of_image(image)[0])
    describe_networks(predictions.provenance)


def sweep_seeds(folder: Path) -> Iterator[bytes]:
    axes = ((0, 1), ("score",), (1.0, 0.9), (0.05,), (0.1, 0.3, 0.5))
    shape = [len(axis) for axis in axes]
    scores = np.random.default_rng(0).random(shape)
    Sweep(*axes, scores, ScoredRun(model="demo")).save(folder / "scores.npz")
    yield (folder / "scores.npz").read_bytes()


def use_sweep(path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.scores.shape == tuple(map(len, sweep.axes()))
    choice = sweep.choose([0, 1])
    choice.fill(Postprocess())
    sweep.place_of(choice.best)
    if choice.best is not None:
        assert choice.best.score > 0
        assert choice.best.postprocess.gate in sweep.gates
        sweep.near_best(choice.best)
    sweep.table()


def coco_seeds(folder: Path) -> Iterator[bytes]:
    images = [{"id": i, "file_name": f"p{i}.png", "width": 90, "height": 80} for i in range(4)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [1.5, 2, 3e1, 40]} for i in range(3)]
    categories = [{"id": 1, "name": "opacity"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    yield json.dumps(content).encode()


def result_seeds(folder: Path) -> Iterator[bytes]:
    boxes = [{"image_id": i, "category_id": 1, "bbox": [1.5, 2, 3e1, 40]} for i in range(3)]
    yield json.dumps([box | {"score": 0.5} for box in boxes]).encode()


def use_results(path: Path) -> None:
    """Read results with and without the images that they are of."""
    images_path = path.with_name("images.json")
    images_path.write_bytes(next(coco_seeds(path.parent)))
    images = read_images(images_path, read_coco(images_path))
    for known in (None, images):
        found = read_results(path, known, categories=None, threshold=0.1)
        assert all(np.isfinite(boxes).all() for boxes, _ in found.values())


def vindr_seeds(folder: Path) -> Iterator[bytes]:
    rows = [f"p{i},opacity,R{i % 3},1.5,2,30,40" for i in range(6)] + ["p9,No finding,R1,,,,"]
    header = "image_id,class_name,rad_id,x_min,y_min,x_max,y_max"
    yield as_table(header, rows)
    yield b"\xef\xbb\xbf" + as_table(header, rows, "\r\n").replace(b",", b";")


def use_labels(source: LabelSource) -> None:
    """Settle the boxes of each image; whatever is wrong is a fault, no error."""
    rows = settle_boxes(source, source.sizes, shares=False, clip=True)
    for truth in make_truths(source, rows, None, ReaderRule()).values():
        assert np.isfinite(truth.boxes_xyxy).all()


def history_seeds(folder: Path) -> Iterator[bytes]:
    yield as_table("epoch,learning_rate,loss", [f"{i},1e-05,{1 / (i + 1):g}" for i in range(8)])


def experiment_seeds(folder: Path) -> Iterator[bytes]:
    settings = {"encoder": "resnet18", "levels": [2, 3], "dropout": 0.5, "crop": None, "flip": True}
    yield json.dumps({"command": ["a", "b"], "settings": settings, "versions": {}}).encode()


def show_experiment(path: Path) -> str:
    experiment = read_description(path)
    row = RunRow("a", read_run_facts(path.parent), RunResult())
    table = write_sortable(run_columns([row]), [None])
    return summarise_experiment(experiment) + write_settings(experiment) + table


def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"layer{i}.weight": torch.rand(4, 3, generator=generator) for i in range(3)}


def checkpoint_seeds(folder: Path) -> Iterator[bytes]:
    for checkpoint in sound_checkpoints():
        checkpoint.save(folder / "seed.safetensors")
        yield (folder / "seed.safetensors").read_bytes()


def old_checkpoint_seeds(folder: Path) -> Iterator[bytes]:
    for checkpoint in sound_checkpoints():
        torch.save(as_version_1(checkpoint), folder / "seed.pt")
        yield (folder / "seed.pt").read_bytes()


def sound_checkpoints() -> list[Checkpoint]:
    optimizer = {"0.step": torch.tensor(3.0), "0.exp_avg": torch.rand(4, 3)}
    return [
        make_checkpoint(state()),
        make_checkpoint(state(), training=make_state(), optimizer=optimizer),
    ]


class TinyEncoder(Encoder):
    """An encoder with three matrices."""

    def __init__(self) -> None:
        super().__init__()
        for name, tensor in state().items():
            layer = torch.nn.Module()
            layer.weight = torch.nn.Parameter(torch.zeros_like(tensor))
            self.add_module(name.partition(".")[0], layer)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        raise NotImplementedError


def weight_seeds(folder: Path) -> Iterator[bytes]:
    for is_zip in (True, False):
        buffer = io.BytesIO()
        torch.save(state(), buffer, _use_new_zipfile_serialization=is_zip)
        yield buffer.getvalue()


def mutate_maybe_archive(content: bytes, other: bytes, random: Random) -> bytes:
    return (mutate_archive if content.startswith(b"PK") else mutate)(content, other, random)


def release_seeds(folder: Path) -> Iterator[bytes]:
    labels = [{"id": f"L{i}", "name": name} for i, name in enumerate(CLASS_NAMES)]
    box = {"x": 1, "y": 2.5, "width": 30, "height": 40}
    annotations = [
        {"SOPInstanceUID": f"1.{i}", "labelId": f"L{i % 3}", "data": box if i % 3 == 2 else None}
        for i in range(7)
    ]
    groups = [{"name": "Calculated", "labels": labels}]
    export = {"labelGroups": groups, "datasets": [{"annotations": annotations}]}
    yield json.dumps(export).encode()


def check_image(path: Path) -> None:
    check_pixels(read_image(path))


def check_picture(path: Path) -> None:
    check_pixels(as_float(read_any_image(path)))


def check_pixels(image: np.ndarray) -> None:
    assert image.ndim == 2
    assert image.size
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 1


READERS = {
    "DICOM, drawn": Reader(check_image, dicom_seeds, "a.dcm"),
    "DICOM, real": Reader(check_image, real_dicom_seeds, "a.dcm"),
    "DICOM header": Reader(image_size, dicom_seeds, "a.dcm"),
    "DICOM facts": Reader(read_facts, dicom_seeds, "a.dcm"),
    "DICOM names": Reader(read_header, dicom_seeds, "a.dcm"),
    "PNG and JPEG": Reader(check_picture, picture_seeds, "a.png", mutate_png),
    "labels": Reader(lambda p: read_label_files(p, needs_classes=False), label_seeds, "a.csv"),
    "classes": Reader(read_classes, class_seeds, "a.csv"),
    "folds": Reader(read_folds, fold_seeds, "a.csv"),
    "pixel cache": Reader(use_cache, cache_seeds, "a.bin", mutate_end),
    "experiment": Reader(show_experiment, experiment_seeds, "experiment.json"),
    "history": Reader(lambda p: read_history(p, ["learning_rate"]), history_seeds, "a.csv"),
    "sample submission": Reader(read_sample_ids, submission_seeds, "a.csv"),
    "submission checker": Reader(check_both_ways, submission_seeds, "a.csv"),
    "leaderboard": Reader(score_against_truth, submission_seeds, "a.csv"),
    "predictions": Reader(use_predictions, prediction_seeds, "a.npz", mutate_archive),
    "scores": Reader(use_sweep, sweep_seeds, "a.npz", mutate_archive),
    "checkpoint": Reader(lambda p: load_checkpoint(p, "demo"), checkpoint_seeds, "a.safetensors"),
    "checkpoint, old": Reader(
        lambda p: load_checkpoint(p, "demo"), old_checkpoint_seeds, "a.pt", mutate_archive
    ),
    "weights, .pth": Reader(
        lambda p: load_encoder_weights(TinyEncoder(), "tiny", p),
        weight_seeds,
        "a.pth",
        mutate_maybe_archive,
    ),
    "weights, .safetensors": Reader(
        lambda p: load_encoder_weights(TinyEncoder(), "tiny", p),
        lambda folder: iter([save(state())]),
        "a.safetensors",
    ),
    "COCO labels": Reader(lambda p: use_labels(read_coco_labels(p)), coco_seeds, "a.json"),
    "COCO results": Reader(use_results, result_seeds, "a.json"),
    "VinDr-CXR's labels": Reader(
        lambda p: use_labels(read_label_table(p, VINDR_COLUMNS)), vindr_seeds, "a.csv"
    ),
    "RSNA's annotations": Reader(
        lambda p: read_annotations(p, Findings()), release_seeds, "a.json"
    ),
}
