"""Slow and obvious versions of what src computes fast; written to be read, not to be run often."""

import math

import numpy as np
import torch

from src.retinanet.losses import detection_losses

IOU_THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)


def iou(box_xywh, other_xywh):
    """Overlap of two boxes."""
    x, y, w, h = (float(v) for v in box_xywh)
    x2, y2, w2, h2 = (float(v) for v in other_xywh)
    if w <= 0 or h <= 0 or w2 <= 0 or h2 <= 0:
        return 0.0
    overlap_w = min(x + w, x2 + w2) - max(x, x2)
    overlap_h = min(y + h, y2 + h2) - max(y, y2)
    if overlap_w <= 0 or overlap_h <= 0:
        return 0.0
    return overlap_w * overlap_h / (w * h + w2 * h2 - overlap_w * overlap_h)


def xywh(boxes_xyxy):
    """Corner and size of boxes that are given by two corners."""
    return [(x, y, x2 - x, y2 - y) for x, y, x2, y2 in np.asarray(boxes_xyxy, dtype=float)]


def match_boxes(boxes_true, boxes_pred, scores, threshold):
    """The true box that each predicted box hits, by its index, None without a hit.

    Every true box, in order, takes the best-scored box that is left.
    """
    order = sorted(range(len(scores)), key=lambda j: -scores[j])
    hit: list[int | None] = [None] * len(scores)
    for t, true in enumerate(boxes_true):
        for j in order:
            if hit[j] is None and iou(true, boxes_pred[j]) >= threshold:
                hit[j] = t
                break
    return hit


def map_iou(boxes_true, boxes_pred, scores, thresholds=IOU_THRESHOLDS):
    """Mean precision of one image."""
    if len(boxes_true) == 0:
        return 0.0 if len(boxes_pred) else None
    precisions = []
    for threshold in thresholds:
        hits = match_boxes(boxes_true, boxes_pred, scores, threshold)
        n_hits = sum(hit is not None for hit in hits)
        precisions.append(n_hits / (len(boxes_pred) + len(boxes_true) - n_hits))
    return sum(precisions) / len(precisions)


def dataset_score(images, threshold):
    """Mean over the images that count.

    Args:
        images: (boxes_true, boxes_pred, scores) triples.
        threshold: boxes count when their score is greater.
    """
    values = []
    for boxes_true, boxes_pred, scores in images:
        kept = [j for j in range(len(scores)) if scores[j] > threshold]
        value = map_iou(boxes_true, [boxes_pred[j] for j in kept], [scores[j] for j in kept])
        if value is not None:
            values.append(value)
    return sum(values) / len(values) if values else math.nan


def nms(boxes_xyxy, scores, threshold):
    """Indices of the boxes that survive, best first."""
    boxes_xywh = xywh(boxes_xyxy)
    kept: list[int] = []
    for j in sorted(range(len(scores)), key=lambda j: -scores[j]):
        if all(iou(boxes_xywh[j], boxes_xywh[k]) <= threshold for k in kept):
            kept.append(j)
    return kept


def gate(score, class_probs, name):
    """What is compared with the threshold, in the formulas of the original and the second place."""
    category = class_probs[2] + 0.1 * class_probs[0]
    return {
        "score": score * 5,
        "score_category": score * category * 10,
        "sqrt_score_category": math.sqrt(score * category) * 5,
    }[name]


def chosen_boxes(predictions, image, postprocess):
    """The boxes of one image that count, one by one: row of the candidate, xywh, gate."""
    rows = predictions.candidates_of(image)
    boxes, scores = predictions.boxes_xyxy[rows], predictions.scores[rows].tolist()
    probs = predictions.class_probs[image].tolist()
    chosen = []
    for j in nms(boxes, scores, postprocess.nms):
        value = gate(scores[j], probs, postprocess.gate)
        if value > postprocess.threshold:
            (x, y, w, h), shrink = xywh(boxes)[j], postprocess.shrink
            box = (x + w * (1 - shrink) / 2, y + h * (1 - shrink) / 2, w * shrink, h * shrink)
            chosen.append((rows.start + j, box, value))
    return chosen


def focal_and_box_loss(probabilities, deltas, anchors, boxes):
    """Both losses of one image, anchor by anchor.

    Args:
        probabilities: (A,), deltas: (A, 4), anchors: (A, 4) xyxy, boxes: (M, 4) xyxy.
    """
    classification, regression, n_positive = 0.0, [], 0
    boxes_xywh = [(x, y, x2 - x, y2 - y) for x, y, x2, y2 in boxes]
    for a, (x1, y1, x2, y2) in enumerate(anchors):
        overlaps = [iou((x1, y1, x2 - x1, y2 - y1), box) for box in boxes_xywh]
        best = max(overlaps, default=0.0)
        p = min(max(float(probabilities[a]), 1e-4), 1 - 1e-4)
        if best < 0.4:
            classification -= 0.75 * p**2 * math.log(1 - p)
        if best < 0.5:
            continue
        n_positive += 1
        classification -= 0.25 * (1 - p) ** 2 * math.log(p)
        x, y, w, h = boxes_xywh[overlaps.index(best)]
        width, height = x2 - x1, y2 - y1
        expected = (
            (x + w / 2 - (x1 + x2) / 2) / width / 0.1,
            (y + h / 2 - (y1 + y2) / 2) / height / 0.1,
            math.log(w / width) / 0.2,
            math.log(h / height) / 0.2,
        )
        for found, target in zip(deltas[a], expected, strict=True):
            error = abs(float(found) - target)
            regression.append(4.5 * error**2 if error <= 1 / 9 else error - 1 / 18)
    return classification / max(1, n_positive), float(np.mean(regression)) if regression else 0.0


def training_step(model, optimizer, batch, clip_norm):
    """One step the plain way: every level of every image goes through both heads."""
    losses = detection_losses(model(batch.images), model.anchors(batch.images), batch.targets)
    optimizer.zero_grad()
    losses.total().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
