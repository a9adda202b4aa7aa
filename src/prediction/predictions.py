"""What networks found in a set of images, as one file: candidates, truth, class probabilities.

The candidates are those before the final non-maximum suppression, so that its threshold can be
swept later without the networks. All boxes are in pixels of the network input; `image_sizes` leads
back to the pixels of the files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.metric import Boxes, FloatArray
from src.prediction.provenance import Provenance
from src.structures import UNKNOWN_CATEGORY
from src.system.array_files import read_arrays
from src.system.errors import InputError
from src.system.files import replaced_file
from src.system.records import build_record

FORMAT = "pneumonia-predictions"
FORMAT_VERSION = 1
FRAME = "pixels of the network input"  # of all boxes, for readers of the file

# name -> (kind of number, shape; letters are sizes that must agree)
ARRAYS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "ids": ("U", ("I",)),
    "image_sizes": ("i", ("I", 2)),
    "class_probs": ("f", ("I", 3)),
    "offsets": ("i", ("I+1",)),
    "boxes_xyxy": ("f", ("K", 4)),
    "scores": ("f", ("K",)),
    "true_offsets": ("i", ("I+1",)),
    "true_boxes_xyxy": ("f", ("M", 4)),
    "true_categories": ("i", ("I",)),
}


class PredictionsError(InputError):
    """A predictions file that is missing, broken or something else."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Candidates for I images, and their truth where it is known.

    Attributes:
        ids: (I,) patientIds.
        image_sizes: (I, 2) height and width of the images' files, pixels.
        class_probs: (I, 3) float32.
        offsets: (I + 1,) int64; image i has candidates offsets[i] to offsets[i + 1].
        boxes_xyxy: (K, 4) float32, pixels of the network input, before the final NMS.
        scores: (K,) float32, descending within each image.
        true_offsets: (I + 1,) int64, like `offsets`.
        true_boxes_xyxy: (M, 4) float32, pixels of the network input.
        true_categories: (I,) int64, -1 where unknown.
        provenance: the networks that made them, and the size of their input.
    """

    ids: NDArray[np.str_]
    image_sizes: NDArray[np.int64]
    class_probs: NDArray[np.float32]
    offsets: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
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

    def candidates(self) -> Boxes:
        """Return the candidates of all images, pixels of the network input."""
        return Boxes(to_xywh(self.boxes_xyxy), self.offsets)

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
        file_size = self.image_sizes[image, ::-1].astype(np.float64)  # width, height
        source_crop = self.provenance.source_crop
        shown = np.full(2, float(source_crop)) if source_crop else file_size
        corner = (file_size - shown) / 2
        boxes = boxes_xyxy.astype(np.float64)
        return boxes * np.tile(shown / self.img_size, 2) + np.tile(corner, 2)

    def save(self, path: Path) -> None:
        """Write to `path` (.npz), whole or not at all."""
        made_by = {
            name: value
            for name, value in dataclasses.asdict(self.provenance).items()
            if name != "ensemble" or value is not None
        }
        header = {"format": FORMAT, "version": FORMAT_VERSION, "frame": FRAME, **made_by}
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays["header"] = np.array(json.dumps(header))
        with replaced_file(path) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)


def load_predictions(path: Path) -> Predictions:
    """Read and check a predictions file; nothing in it can run code.

    Raises:
        PredictionsError: missing, no .npz, or not the arrays of this format.
    """
    content = read_arrays(path, ("header", *ARRAYS), "predictions", PredictionsError)
    provenance = _parse_header(path, content.pop("header"))
    _check_arrays(path, content)
    return Predictions(provenance=provenance, **content)


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Put predictions of different images, such as those of four folds, into one.

    Their provenance keeps what all parts agree on.

    Raises:
        PredictionsError: an image is in two parts, or the network inputs differ.
    """
    first = parts[0]
    seen: dict[str, int] = {}
    for i, part in enumerate(parts):
        if part.img_size != first.img_size:
            raise PredictionsError(
                f"predictions of {first.img_size} and of {part.img_size} px cannot be pooled"
            )
        if part.provenance.source_crop != first.provenance.source_crop:
            raise PredictionsError(
                f"predictions of source crops {first.provenance.source_crop} and "
                f"{part.provenance.source_crop} cannot be pooled"
            )
        for patient in part.ids.tolist():
            if patient in seen:
                raise PredictionsError(
                    f"patient {patient} is in {_origin(parts[seen[patient]])} and in "
                    f"{_origin(part)}: these cannot be pooled"
                )
            seen[patient] = i
    arrays: dict[str, NDArray[Any]] = {}
    for name in ARRAYS:
        values = [getattr(part, name) for part in parts]
        if name.endswith("offsets"):
            counts = np.concatenate([np.diff(value) for value in values])
            arrays[name] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        else:
            arrays[name] = np.concatenate(values)
    differing = {
        field.name: None
        for field in dataclasses.fields(Provenance)
        if len({getattr(part.provenance, field.name) for part in parts}) > 1
    }
    provenance = dataclasses.replace(first.provenance, **differing)  # type: ignore[arg-type]
    return Predictions(provenance=provenance, **arrays)


def take_images(predictions: Predictions, images: Sequence[int]) -> Predictions:
    """Keep some images, in the order that is given."""
    arrays: dict[str, NDArray[Any]] = {}
    for offsets, names in (
        ("offsets", ("boxes_xyxy", "scores")),
        ("true_offsets", ("true_boxes_xyxy",)),
    ):
        starts = getattr(predictions, offsets)
        rows = [np.arange(starts[image], starts[image + 1]) for image in images]
        arrays[offsets] = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        order = np.concatenate([np.empty(0, dtype=np.int64), *rows])
        arrays |= {name: getattr(predictions, name)[order] for name in names}
    for name in ("ids", "image_sizes", "class_probs", "true_categories"):
        arrays[name] = getattr(predictions, name)[list(images)]
    return Predictions(provenance=predictions.provenance, **arrays)


def to_xywh(boxes_xyxy: NDArray[np.floating[Any]]) -> FloatArray:
    """Turn boxes (K, 4) from two corners into corner and size, float64."""
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _origin(predictions: Predictions) -> str:
    return f"{predictions.provenance.model} fold {predictions.provenance.fold}"


def _parse_header(path: Path, header: NDArray[Any]) -> Provenance:
    try:
        fields = json.loads(str(header))
        version = (fields["format"], fields["version"])
        if version == (FORMAT, FORMAT_VERSION):
            known = {field.name for field in dataclasses.fields(Provenance)}
            return build_record(
                Provenance, {name: value for name, value in fields.items() if name in known}
            )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PredictionsError(
            f"{path}: not a predictions file: its header is wrong: {error}"
        ) from error
    raise PredictionsError(f"{path}: not a predictions file of format version {FORMAT_VERSION}")


def _check_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Hold every array against `ARRAYS`, and the offsets and boxes against sense."""
    if arrays["ids"].ndim != 1:
        raise PredictionsError(f"{path}: ids has {arrays['ids'].ndim} dimensions, not 1")
    sizes: dict[str | int, int] = {"I": len(arrays["ids"]), "I+1": len(arrays["ids"]) + 1}
    for name, (kind, shape) in ARRAYS.items():
        array = arrays[name]
        if array.dtype.kind != kind or array.ndim != len(shape):
            raise PredictionsError(f"{path}: {name} is {array.dtype} with {array.ndim} dimensions")
        for actual, size in zip(array.shape, shape, strict=True):
            expected = size if isinstance(size, int) else sizes.setdefault(size, actual)
            if actual != expected:
                raise PredictionsError(f"{path}: {name} has shape {array.shape}, not {shape}")
    for name, values in (("offsets", "scores"), ("true_offsets", "true_boxes_xyxy")):
        steps = arrays[name]
        if steps[0] != 0 or steps[-1] != len(arrays[values]) or (np.diff(steps) < 0).any():
            raise PredictionsError(f"{path}: {name} do not cover {values} in order")
    if not np.isin(arrays["true_categories"], (UNKNOWN_CATEGORY, 0, 1, 2)).all():
        raise PredictionsError(f"{path}: true_categories holds what is no class of images")
    for name in ("boxes_xyxy", "scores", "true_boxes_xyxy", "class_probs"):
        if not np.isfinite(arrays[name]).all():
            raise PredictionsError(f"{path}: {name} holds a number that is not finite")
