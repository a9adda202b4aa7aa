"""What networks found in a set of images, as one file: candidates, truth, class probabilities.

The candidates are those before the final non-maximum suppression, so that its threshold can be
swept later without the networks. All boxes are in pixels of the network input; `image_sizes` leads
back to the pixels of the files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.datasets.patient_groups import number_patients
from src.datasets.patient_ids import patient_of_file
from src.metric import Boxes, FloatArray, IntArray
from src.prediction.provenance import Provenance
from src.radiographs.pixels import MAX_PIXELS
from src.structures import CLASS_NAMES, UNKNOWN_CATEGORY
from src.system.array_files import ArraySchema, check_arrays, read_arrays
from src.system.errors import InputError
from src.system.files import replaced_file
from src.system.records import MAX_CAUSE, build_record, cut_text

FORMAT = "pneumonia-predictions"
FORMAT_VERSION = 1
FRAME = "pixels of the network input"  # of all boxes, for readers of the file
# What is left out of the header at these values.
OPTIONAL = {
    "fit": "squeeze",
    "ensemble": None,
    "named_by": "patient",
    "images": None,
    "image_scores": None,
    "weak": None,
    "fusion": None,
}
MAX_PROB = 1 + 1e-5  # the mean of several float32 may be above 1 by rounding
MAX_PLACE = 2.0**24  # pixels that a box may lie away

ARRAYS = {
    "ids": ArraySchema(dtype="str", shape=("I",), is_unique=True),
    "image_sizes": ArraySchema(dtype="int64", shape=("I", 2), low=1, high=MAX_PIXELS),
    "class_probs": ArraySchema(dtype="float32", shape=("I", len(CLASS_NAMES)), low=0,
                               high=MAX_PROB),
    "offsets": ArraySchema(dtype="int64", shape=("I+1",), low=0),
    "boxes_xyxy": ArraySchema(dtype="float32", shape=("K", 4), low=-MAX_PLACE, high=MAX_PLACE),
    "scores": ArraySchema(dtype="float32", shape=("K",), low=0, high=MAX_PROB),
    "true_offsets": ArraySchema(dtype="int64", shape=("I+1",), low=0),
    "true_boxes_xyxy": ArraySchema(dtype="float32", shape=("M", 4), low=-MAX_PLACE,
                                   high=MAX_PLACE),
    "true_categories": ArraySchema(dtype="int64", shape=("I",), low=UNKNOWN_CATEGORY,
                                   high=len(CLASS_NAMES) - 1),
}  # fmt: skip
# Newer than the others: where the header says nothing of them, they are not there.
WEAK_ARRAYS = {
    "weak_offsets": ArraySchema(dtype="int64", shape=("I+1",), low=0),
    "weak_boxes_xyxy": ArraySchema(dtype="float32", shape=("W", 4), low=-MAX_PLACE, high=MAX_PLACE),
    "weak_scores": ArraySchema(dtype="float32", shape=("W",), low=0, high=MAX_PROB),
}
# Not there where every image is of a patient of its own, nor in older files.
GROUP_ARRAYS = {"group_ids": ArraySchema(dtype="str", shape=("I",))}
# Which arrays have a row for each box of an image, by the array that says where it begins.
BOXES_BY_OFFSETS = {
    "offsets": ("boxes_xyxy", "scores"),
    "weak_offsets": ("weak_boxes_xyxy", "weak_scores"),
    "true_offsets": ("true_boxes_xyxy",),
}
ALL_ARRAYS = ARRAYS | WEAK_ARRAYS | GROUP_ARRAYS
HEADER = {"header": ArraySchema(dtype="str", shape=())}  # JSON


class PredictionsError(InputError):
    """A predictions file that is missing, broken or something else."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Candidates for I images, and their truth where it is known.

    Attributes:
        ids: (I,) patientIds, or names of files where `provenance.named_by` says so; all different.
        group_ids: (I,) the images of one patient share it; "" where the image is alone.
        image_sizes: (I, 2) height and width of the images' files, pixels.
        class_probs: (I, 3) float32.
        offsets: (I + 1,) int64; image i has candidates offsets[i] to offsets[i + 1].
        boxes_xyxy: (K, 4) float32, pixels of the network input, before the final NMS.
        scores: (K,) float32, descending within each image.
        weak_offsets, weak_boxes_xyxy, weak_scores: like those, of boxes below the limits of
            candidates: `provenance.weak` says which were saved; none in older files.
        true_offsets: (I + 1,) int64, like `offsets`.
        true_boxes_xyxy: (M, 4) float32, pixels of the network input.
        true_categories: (I,) int64, -1 where unknown.
        provenance: the networks that made them, and the size of their input.
    """

    ids: NDArray[np.str_]
    group_ids: NDArray[np.str_]
    image_sizes: NDArray[np.int64]
    class_probs: NDArray[np.float32]
    offsets: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    weak_offsets: NDArray[np.int64]
    weak_boxes_xyxy: NDArray[np.float32]
    weak_scores: NDArray[np.float32]
    true_offsets: NDArray[np.int64]
    true_boxes_xyxy: NDArray[np.float32]
    true_categories: NDArray[np.int64]
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_truth(self) -> bool:
        """Say whether the labels of every image are known."""
        return bool((self.true_categories != UNKNOWN_CATEGORY).all())

    @property
    def img_size(self) -> int:
        """Return the side of the network input, pixels."""
        return self.provenance.img_size

    @property
    def patient_ids(self) -> list[str]:
        """Return the ids that submissions name the images by, "" where one is no patient's."""
        ids: list[str] = self.ids.tolist()
        return ids if self.provenance.named_by == "patient" else list(map(patient_of_file, ids))

    @property
    def patients(self) -> IntArray:
        """Return the patient that each image belongs to, (I,): equal where two share one."""
        return number_patients(self.group_ids)

    def candidates(self) -> Boxes:
        """Return the candidates of all images, pixels of the network input."""
        return Boxes(to_xywh(self.boxes_xyxy), self.offsets)

    def with_weak(self) -> Predictions:
        """Return the same with the weaker boxes among the candidates, best first."""
        each = (self.offsets, self.weak_offsets)
        counts = np.sum([np.diff(offsets) for offsets in each], axis=0)
        images = np.arange(len(self))
        image = np.concatenate([np.repeat(images, np.diff(offsets)) for offsets in each])
        scores = np.concatenate([self.scores, self.weak_scores])
        order = np.lexsort((-scores, image))
        return dataclasses.replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes_xyxy=np.concatenate([self.boxes_xyxy, self.weak_boxes_xyxy])[order],
            scores=scores[order],
            **no_weak_boxes(len(self)),
            provenance=dataclasses.replace(self.provenance, weak=None),
        )

    def truth(self) -> Boxes:
        """Return the true boxes of all images, pixels of the network input."""
        return Boxes(to_xywh(self.true_boxes_xyxy), self.true_offsets)

    def candidates_of(self, image: int) -> slice:
        """Return the rows of `boxes_xyxy` and `scores` that belong to an image."""
        return slice(int(self.offsets[image]), int(self.offsets[image + 1]))

    def truth_of(self, image: int) -> slice:
        """Return the rows of `true_boxes_xyxy` that belong to an image."""
        return slice(int(self.true_offsets[image]), int(self.true_offsets[image + 1]))

    def in_file_pixels(
        self, image: int, boxes_xyxy: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        """Carry boxes (N, 4) of an image from pixels of the network input to those of its file."""
        scale, corner = self._place_of_input(image)
        return boxes_xyxy.astype(np.float64) * scale + corner

    def in_input_pixels(
        self, image: int, boxes_xyxy: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        """Carry boxes (N, 4) of an image back: the inverse of `in_file_pixels`."""
        scale, corner = self._place_of_input(image)
        return (boxes_xyxy.astype(np.float64) - corner) / scale

    def _place_of_input(self, image: int) -> tuple[FloatArray, FloatArray]:
        """Return file pixels to an input pixel, and where the input begins in the file, (4,)."""
        height, width = self.image_sizes[image].tolist()
        shown_height, shown_width = self.provenance.shown.size((height, width))
        shown = np.array([shown_width, shown_height], dtype=np.float64)
        corner = (np.array([width, height]) - shown) / 2
        return np.tile(shown / self.img_size, 2), np.tile(corner, 2)

    def save(self, path: Path) -> None:
        """Write to `path` (.npz), whole or not at all."""
        made_by = {
            name: value
            for name, value in dataclasses.asdict(self.provenance).items()
            if name not in OPTIONAL or value != OPTIONAL[name]
        }
        header = {"format": FORMAT, "version": FORMAT_VERSION, "frame": FRAME, **made_by}
        saved = ARRAYS if self.provenance.weak is None else ARRAYS | WEAK_ARRAYS
        saved = saved | GROUP_ARRAYS if (self.group_ids != "").any() else saved
        arrays = {name: getattr(self, name) for name in saved}
        arrays["header"] = np.array(json.dumps(header))
        with replaced_file(path) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)


def load_predictions(path: Path) -> Predictions:
    """Read and check a predictions file; nothing in it can run code.

    Raises:
        PredictionsError: missing, no .npz, or not the arrays of this format.
    """
    has_weak = load_provenance(path).weak is not None
    names = [*HEADER, *ARRAYS, *(WEAK_ARRAYS if has_weak else ())]
    content = read_arrays(path, names, "predictions", PredictionsError, optional=GROUP_ARRAYS)
    with _named_errors(path):
        provenance = _parse_header(content)
        check_arrays(content, {n: each for n, each in ALL_ARRAYS.items() if n in content})
        content = optional_arrays(len(content["ids"])) | content
        _check_order(content)
    return Predictions(provenance=provenance, **{name: content[name] for name in ALL_ARRAYS})


def load_provenance(path: Path) -> Provenance:
    """Read what made the predictions of a file, and nothing else of it.

    Raises:
        PredictionsError: missing, no .npz, or not the header of this format.
    """
    content = read_arrays(path, HEADER, "predictions", PredictionsError)
    with _named_errors(path):
        return _parse_header(content)


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Put predictions of different images, such as those of four folds, into one.

    Their provenance keeps what all parts agree on; of ensembles that differ in nothing but the
    folds of their networks it keeps all else.

    Raises:
        PredictionsError: an image is in two parts, or the network inputs differ, or what the ids
            are.
    """
    first = parts[0]
    seen: dict[str, int] = {}
    for i, part in enumerate(parts):
        if part.img_size != first.img_size:
            raise PredictionsError(
                f"predictions of {first.img_size} and of {part.img_size} px cannot be pooled"
            )
        for name in ("source_crop", "fit"):
            ours, its = getattr(first.provenance, name), getattr(part.provenance, name)
            if its != ours:
                raise PredictionsError(f"predictions of {name} {ours} and {its} cannot be pooled")
        if part.provenance.named_by != first.provenance.named_by:
            raise PredictionsError("predictions of patients and of files cannot be pooled")
        for patient in part.ids.tolist():
            if patient in seen:
                raise PredictionsError(
                    f"patient {cut_text(patient)} is in {_origin(parts[seen[patient]])} and in "
                    f"{_origin(part)}: these cannot be pooled"
                )
            seen[patient] = i
    arrays: dict[str, NDArray[Any]] = {}
    for name in ALL_ARRAYS:
        values = [getattr(part, name) for part in parts]
        if name.endswith("offsets"):
            counts = np.concatenate([np.diff(value) for value in values])
            arrays[name] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        else:
            arrays[name] = np.concatenate(values)
    return Predictions(provenance=_common([part.provenance for part in parts]), **arrays)


def _common(parts: Sequence[Provenance]) -> Provenance:
    """Return what all parts agree on."""
    if len(set(parts)) > 1:
        parts = [
            dataclasses.replace(part, ensemble=part.ensemble and part.ensemble.without_folds())
            for part in parts
        ]
    differing = {
        field.name: None
        for field in dataclasses.fields(Provenance)
        if len({getattr(part, field.name) for part in parts}) > 1
    }
    return dataclasses.replace(parts[0], **differing)  # type: ignore[arg-type]


def optional_arrays(n_images: int) -> dict[str, NDArray[Any]]:
    """Return what a file may lack: no weaker boxes, each image of a patient of its own."""
    return {"group_ids": np.full(n_images, ""), **no_weak_boxes(n_images)}


def no_weak_boxes(n_images: int) -> dict[str, NDArray[Any]]:
    """Return `WEAK_ARRAYS` of images beside whose candidates no boxes were saved."""
    return {
        "weak_offsets": np.zeros(n_images + 1, dtype=np.int64),
        "weak_boxes_xyxy": np.zeros((0, 4), dtype=np.float32),
        "weak_scores": np.zeros(0, dtype=np.float32),
    }


def take_images(predictions: Predictions, images: Sequence[int]) -> Predictions:
    """Keep some images, in the order that is given."""
    arrays: dict[str, NDArray[Any]] = {}
    for offsets, names in BOXES_BY_OFFSETS.items():
        starts = getattr(predictions, offsets)
        rows = [np.arange(starts[image], starts[image + 1]) for image in images]
        arrays[offsets] = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        order = np.concatenate([np.empty(0, dtype=np.int64), *rows])
        arrays |= {name: getattr(predictions, name)[order] for name in names}
    for name in ("ids", "group_ids", "image_sizes", "class_probs", "true_categories"):
        arrays[name] = getattr(predictions, name)[list(images)]
    return Predictions(provenance=predictions.provenance, **arrays)


def to_xywh(boxes_xyxy: NDArray[np.floating[Any]]) -> FloatArray:
    """Turn boxes (K, 4) from two corners into corner and size, float64."""
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def to_xyxy(boxes_xywh: FloatArray) -> FloatArray:
    """Turn boxes (K, 4) from corner and size into two corners."""
    return np.hstack([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]])


def _origin(predictions: Predictions) -> str:
    return f"{predictions.provenance.model} fold {predictions.provenance.fold}"


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file's content into a PredictionsError that names the file."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        cause = cut_text(" ".join(str(error).split()), MAX_CAUSE)
        raise PredictionsError(f"{path}: not a predictions file: {cause}") from error


def _parse_header(arrays: Mapping[str, NDArray[Any]]) -> Provenance:
    """Return what the header says about the networks; fields that nobody knows are passed over."""
    check_arrays(arrays, HEADER)
    fields = json.loads(str(arrays["header"]))
    if not isinstance(fields, dict) or (fields.get("format"), fields.get("version")) != (
        FORMAT,
        FORMAT_VERSION,
    ):
        raise ValueError(f"its header is not of {FORMAT}, version {FORMAT_VERSION}")
    known = {field.name for field in dataclasses.fields(Provenance)}
    return build_record(
        Provenance, {name: value for name, value in fields.items() if name in known}
    )


def _check_order(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError where arrays that are sound one by one make no sense together."""
    for name, (boxes_name, *scores_name) in BOXES_BY_OFFSETS.items():
        steps, boxes = arrays[name], arrays[boxes_name]
        if steps[0] != 0 or steps[-1] != len(boxes) or (np.diff(steps) < 0).any():
            raise ValueError(f"{name} do not cover {boxes_name} in order")
        if (boxes[:, 2:] < boxes[:, :2]).any():
            raise ValueError(f"{boxes_name} holds a box whose right or lower edge comes first")
        image = np.repeat(np.arange(len(arrays["ids"])), np.diff(steps))
        for scores in scores_name:
            if ((np.diff(arrays[scores]) > 0) & (np.diff(image) == 0)).any():
                raise ValueError(f"{scores} do not descend within each image")
