"""Choose the images of a fold that are worth a look: false positives, missed boxes, hits.

Each image stands at most once in a list, for its worst or best box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.metric import FloatArray, IntArray, iou
from src.prediction.postprocess import gate_scores, shrink_boxes
from src.prediction.predictions import to_xywh
from src.scoring.matching import HIT_IOU, Findings

SCORE_DECIMALS = 9  # equal scores of images differ by rounding behind that


@dataclass(frozen=True)
class Entry:
    """An image of the gallery.

    Attributes:
        image: its index in the predictions.
        reason: why it is shown, for the reader.
        marked_found: found boxes that are meant, as rows of `Findings.boxes`.
        marked_true: true boxes that are meant, as rows of `Findings.true`.
    """

    image: int
    reason: str
    marked_found: tuple[int, ...] = ()
    marked_true: tuple[int, ...] = ()


def worst_false_positives(findings: Findings, n_images: int) -> list[Entry]:
    """List the images of the found boxes that hit nothing, the surest first.

    All false positives of an image are marked; the surest decides its place.
    """
    false = np.flatnonzero(findings.matches < 0)
    gates = _gates(findings)[findings.chosen.rows]
    false = false[np.argsort(-gates[false], kind="stable")]
    groups = _by_image(false, findings.boxes.offsets)[:n_images]
    return [
        Entry(image, _explain_false(findings, image, boxes), marked_found=boxes)
        for image, boxes in groups
    ]


def missed_boxes(findings: Findings, n_images: int) -> list[Entry]:
    """List the images of the true boxes that nothing hits, the least noticed first.

    A box is noticed by the best-scored candidate, counted or not, that reaches IoU .40 with it. Of
    equally unnoticed ones the largest comes first. All missed boxes of an image are marked.
    """
    missed = findings.missed
    areas = findings.true.xywh[missed, 2:].prod(axis=1)
    noticed = [_noticed_by(findings, row)[0] for row in missed.tolist()]
    missed = missed[np.lexsort((-areas, noticed))]
    groups = _by_image(missed, findings.true.offsets)[:n_images]
    return [
        Entry(image, _explain_missed(findings, boxes), marked_true=boxes) for image, boxes in groups
    ]


def loosest_hits(findings: Findings, n_images: int) -> list[Entry]:
    """List the images of the found boxes that hit with the least overlap."""
    hits = np.flatnonzero(findings.matches >= 0)
    overlaps = findings.hit_overlaps(hits)
    order = np.argsort(overlaps, kind="stable")
    least = dict(zip(hits.tolist(), overlaps.tolist(), strict=True))
    return [
        Entry(image, f"IoU {least[boxes[0]]:.2f} with its true box", marked_found=boxes[:1])
        for image, boxes in _by_image(hits[order], findings.boxes.offsets)[:n_images]
    ]


def best_hits(findings: Findings, n_images: int) -> list[Entry]:
    """List the images with a hit, the best by the challenge's score first, then by mean IoU."""
    hits = np.flatnonzero(findings.matches >= 0)
    images = _images_of(hits, findings.boxes.offsets)
    n_all = len(findings.predictions)
    n_hits = np.bincount(images, minlength=n_all)
    sums = np.bincount(images, weights=findings.hit_overlaps(hits), minlength=n_all)
    mean_iou = sums / np.maximum(n_hits, 1)
    scores = findings.image_scores.round(SCORE_DECIMALS)
    order = np.lexsort((-mean_iou[images], -scores[images]))
    n_true = findings.true.counts()
    return [
        Entry(
            image,
            f"{n_hits[image]} of {n_true[image]} true boxes hit, mean IoU {mean_iou[image]:.2f}",
        )
        for image, _ in _by_image(hits[order], findings.boxes.offsets)[:n_images]
    ]


def _gates(findings: Findings) -> FloatArray:
    """Return what is compared with the threshold, for every candidate."""
    return gate_scores(findings.predictions, findings.postprocess.gate)


def _images_of(boxes: IntArray, offsets: IntArray) -> IntArray:
    """Return the image that each box belongs to, given as a row of a table with these offsets."""
    return np.searchsorted(offsets, boxes, side="right") - 1


def _by_image(boxes: IntArray, offsets: IntArray) -> list[tuple[int, tuple[int, ...]]]:
    """Gather boxes, in the order given, under their images, in the order of the first box."""
    groups: dict[int, list[int]] = {}
    for box, image in zip(boxes.tolist(), _images_of(boxes, offsets).tolist(), strict=True):
        groups.setdefault(image, []).append(box)
    return [(image, tuple(own)) for image, own in groups.items()]


def _noticed_by(findings: Findings, true_row: int) -> tuple[float, int]:
    """Return score and row of the best candidate that reaches a true box; 0 and -1 if none does."""
    predictions = findings.predictions
    image = int(_images_of(np.array([true_row]), findings.true.offsets)[0])
    rows = predictions.candidates_of(image)
    candidates = shrink_boxes(to_xywh(predictions.boxes_xyxy[rows]), findings.postprocess.shrink)
    reaching = np.flatnonzero(iou(candidates, findings.true.xywh[true_row]) >= HIT_IOU)
    if len(reaching) == 0:
        return 0.0, -1
    row = rows.start + int(reaching[0])  # scores descend
    return float(predictions.scores[row]), row


def _explain_false(findings: Findings, image: int, boxes: Sequence[int]) -> str:
    """Say how sure the surest false positive is, and how far from a true box."""
    score = findings.chosen.scores[boxes[0]]
    true = findings.true.xywh[findings.predictions.truth_of(image)]
    overlap = iou(findings.boxes.xywh[boxes[0]], true).max(initial=0.0)
    if len(true) == 0:
        place = "in an image without true boxes"
    elif overlap >= HIT_IOU:
        place = f"a second box on a true one (IoU {overlap:.2f})"
    elif overlap > 0:
        place = f"IoU {overlap:.2f} with the nearest true box"
    else:
        place = "touches no true box"
    others = f"; {len(boxes)} false boxes in all" if len(boxes) > 1 else ""
    return f"score {score:.2f}, {place}{others}"


def _explain_missed(findings: Findings, boxes: Sequence[int]) -> str:
    """Say why the least noticed of an image's missed boxes was missed."""
    score, row = _noticed_by(findings, boxes[0])
    if row < 0:
        cause = f"no candidate reaches IoU {HIT_IOU:.2f} with it"
    elif _gates(findings)[row] <= findings.postprocess.threshold:
        cause = f"its best candidate scores {score:.2f}, below the threshold"
    elif row not in findings.chosen.rows:
        cause = f"its best candidate, score {score:.2f}, fell to a better box in the NMS"
    else:
        cause = f"its best candidate, score {score:.2f}, hits another true box"
    return f"{len(boxes)} missed; of the least noticed one: {cause}" if len(boxes) > 1 else cause
