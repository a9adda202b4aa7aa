"""Compare an exported graph with PyTorch, image by image and step by step.

A network's outputs differ in their last digits between two libraries, and such a digit decides
which of two near-equal candidates is first, hence which of them the suppression drops. So every
step is compared on equal inputs: the network's outputs on the same images, the candidates on the
graph's own outputs, the suppression on the graph's own candidates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from src.onnx_export.graph import INPUT, with_steps
from src.onnx_export.padded import RESULTS, STEPS, PaddedDetector, PaddedOutputs
from src.retinanet.candidates import find_candidates, suppress
from src.structures import Detections, RawOutputs
from src.system.errors import InputError
from src.system.files import text_name

if TYPE_CHECKING:  # `_open` says why it is imported late
    import onnxruntime


BATCH_SIZES = (1, 3)  # of the images in turn: a graph may be right for one size alone
N_FOR_ALL_SIZES = sum(BATCH_SIZES)
LOG_ERRORS_ONLY = 3  # onnxruntime's level


class CheckError(InputError):
    """A graph that does not compute what PyTorch computes."""


@dataclass(frozen=True)
class Check:
    """How far a graph is from PyTorch.

    Attributes:
        n_images, n_candidates, n_boxes: how much was compared.
        differences: the largest ones, absolute, by what was compared; of boxes in shares of the
            image's longer side. Infinite where an image has more or fewer boxes.
    """

    n_images: int
    n_candidates: int
    n_boxes: int
    differences: dict[str, float]

    def lines(self) -> Iterator[str]:
        """Write a table."""
        yield (
            f"{self.n_images} images in batches of {' and '.join(map(str, BATCH_SIZES))}: "
            f"{self.n_candidates} candidates, {self.n_boxes} boxes"
        )
        yield f"{'onnxruntime against PyTorch':28} largest difference"
        for name, difference in self.differences.items():
            yield f"{name:28} {difference:.1e}"
        if not self.n_candidates:
            yield "no candidate was compared; --check-images with radiographs may bring some"

    def require(self, tolerance: float) -> None:
        """Make sure that nothing differs by more.

        Raises:
            CheckError: something does.
        """
        for name, difference in self.differences.items():
            if not difference <= tolerance:  # not a number is no agreement
                raise CheckError(
                    f"the exported graph differs from PyTorch: {name} by {difference:.1e}, more "
                    f"than --tolerance {tolerance:g}; no file was written"
                )


def check_graph(
    path: Path, detector: PaddedDetector, images: Iterable[Tensor], n_images: int
) -> Check:
    """Run a graph and the detector that it was made of over images.

    Args:
        images: (1, H, W) float32 in [0, 1] each.
        n_images: their number, `N_FOR_ALL_SIZES` or more.
    """
    with text_name(path) as place:
        file = _open(place)
    inside = _open(with_steps(path))
    largest: dict[str, float] = {}
    n_candidates = n_boxes = 0
    for batch in _batches(tqdm(images, "check", n_images, unit="image")):
        outputs = PaddedOutputs(*_run(file, RESULTS, batch), *_run(inside, STEPS, batch))
        for name, difference in _compare(outputs, detector, batch).items():
            largest[name] = float(np.maximum(largest.get(name, 0.0), difference))
        n_candidates += int((outputs.candidate_scores > 0).sum())
        n_boxes += int((outputs.scores > 0).sum())
    return Check(n_images, n_candidates, n_boxes, largest)


def synthetic_images(image_size: tuple[int, int]) -> list[Tensor]:
    """Make images (1, H, W) of clouds and noise in [0, 1], the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    clouds = torch.rand(N_FOR_ALL_SIZES, 1, 8, 8, generator=generator)
    images = F.interpolate(clouds, size=image_size, mode="bicubic")
    return list((images + 0.1 * torch.randn(images.shape, generator=generator)).clamp(0, 1))


def _open(source: str | bytes) -> onnxruntime.InferenceSession:
    # When onnxruntime is imported it reports its use, unless this is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = LOG_ERRORS_ONLY
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _run(
    session: onnxruntime.InferenceSession, names: Sequence[str], images: Tensor
) -> list[Tensor]:
    return [torch.from_numpy(out) for out in session.run(list(names), {INPUT: images.numpy()})]


def _batches(images: Iterable[Tensor]) -> Iterator[Tensor]:
    remaining = iter(images)
    for size in cycle(BATCH_SIZES):
        batch = list(islice(remaining, size))
        if not batch:
            return
        yield torch.stack(batch)


def _compare(outputs: PaddedOutputs, detector: PaddedDetector, images: Tensor) -> dict[str, float]:
    with torch.inference_mode():
        scores, deltas, class_log_probs = detector.network(images)
    graph_raw = RawOutputs(outputs.anchor_scores, outputs.anchor_deltas, class_log_probs)
    found = find_candidates(graph_raw, detector.anchors, detector.image_size, detector.limits)
    graph_found = _unpad(outputs.candidate_boxes_xyxy, outputs.candidate_scores)
    kept = [_choose(image, detector) for image in graph_found]
    graph_kept = _unpad(outputs.boxes_xyxy, outputs.scores)
    side = max(detector.image_size)
    return {
        "scores at the anchors": _gap(outputs.anchor_scores, scores),
        "deltas at the anchors": _gap(outputs.anchor_deltas, deltas),
        "class probabilities": _gap(outputs.class_probs, class_log_probs.exp()),
        "candidates": _detection_gap(graph_found, found, side),
        "boxes": _detection_gap(graph_kept, kept, side),
    }


def _choose(candidates: Detections, detector: PaddedDetector) -> Detections:
    """Suppress and cut off as the detector does.

    One image at a time: `suppress` shifts the boxes of a batch's images apart, which rounds them.
    """
    if detector.nms_iou is not None:
        (candidates,) = suppress([candidates], detector.nms_iou)
    n = detector.max_boxes
    return Detections(candidates.boxes_xyxy[:n], candidates.scores[:n], candidates.class_probs)


def _unpad(boxes_xyxy: Tensor, scores: Tensor) -> list[Detections]:
    """Turn tables (B, N, 4) and (B, N) into what they say of each image."""
    return [
        Detections(image_boxes[:n], image_scores[:n], torch.empty(0))
        for image_boxes, image_scores, n in zip(
            boxes_xyxy, scores, (scores > 0).sum(dim=1).tolist(), strict=True
        )
    ]


def _detection_gap(found: list[Detections], expected: list[Detections], side: int) -> float:
    """Return the largest difference of scores, and of boxes in shares of `side`."""
    gaps = [0.0]
    for ours, its in zip(expected, found, strict=True):
        if len(ours.scores) != len(its.scores):
            return np.inf
        gaps += [_gap(its.scores, ours.scores), _gap(its.boxes_xyxy, ours.boxes_xyxy) / side]
    return float(np.max(gaps))


def _gap(found: Tensor, expected: Tensor) -> float:
    return float(np.max(np.abs(found.numpy() - expected.numpy()), initial=0.0))
