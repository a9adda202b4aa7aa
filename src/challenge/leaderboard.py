"""The challenge's leaderboard, offline: the score of any submission against a label file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.challenge.submission_file import SubmissionError, SubmittedBox, read_submission
from src.datasets.annotations import Record, read_label_files, with_groups
from src.datasets.patient_groups import number_patients, read_group_column
from src.metric import (
    IOU_THRESHOLDS,
    BoolArray,
    Boxes,
    FloatArray,
    IntArray,
    bootstrap_interval,
    image_scores,
    mean_score,
)
from src.structures import CLASS_NAMES, UNKNOWN_CATEGORY
from src.system.records import cut_text


@dataclass(frozen=True, eq=False)
class LeaderboardResult:
    """What a submission scores.

    An image counts when it has true boxes, or when boxes are predicted in it; one of the latter
    alone is a false alarm and scores 0.

    Attributes:
        ids: (I,) patientIds, sorted.
        patients: (I,) the patient that each image belongs to, any integers.
        categories: (I,) indices into `CLASS_NAMES`; `UNKNOWN_CATEGORY` where labels tell none.
        n_true, n_predicted: (I,) boxes of each image.
        precisions: (T, I) TP / (TP + FP + FN) at each of `IOU_THRESHOLDS`; NaN where an image does
            not count.
    """

    ids: tuple[str, ...]
    patients: IntArray
    categories: IntArray
    n_true: IntArray
    n_predicted: IntArray
    precisions: FloatArray

    @property
    def image_scores(self) -> FloatArray:
        """Return the mean over the IoU thresholds, (I,), NaN where an image does not count."""
        return self.precisions.mean(axis=0)

    @property
    def counted(self) -> BoolArray:
        """Return which images count, (I,)."""
        return ~np.isnan(self.image_scores)

    @property
    def n_counted(self) -> int:
        return int(self.counted.sum())

    @property
    def n_false_alarms(self) -> int:
        """Return the number of images without true boxes in which boxes are predicted."""
        return int(((self.n_true == 0) & (self.n_predicted > 0)).sum())

    @property
    def score(self) -> float:
        """Return the challenge's score; NaN where no image counts."""
        return mean_score(self.image_scores)

    @property
    def iou_scores(self) -> dict[float, float]:
        """Return the mean over the images that count at each IoU threshold."""
        rows = zip(IOU_THRESHOLDS, self.precisions, strict=True)
        return {threshold: _mean(row[self.counted]) for threshold, row in rows}

    def groups(self) -> dict[str, BoolArray]:
        """Return the images (I,) of each class; without classes, those with and without boxes."""
        if (self.categories == UNKNOWN_CATEGORY).any():
            return {"with true boxes": self.n_true > 0, "without true boxes": self.n_true == 0}
        return {name: self.categories == k for k, name in enumerate(CLASS_NAMES)}

    @property
    def class_scores(self) -> dict[str, float]:
        """Return the mean over the images of each group that count; NaN where none does."""
        return {
            name: mean_score(self.image_scores[images]) for name, images in self.groups().items()
        }

    def interval(self) -> tuple[float, float]:
        """Return where 95 % of bootstrap draws of the score lie; NaN where no image counts."""
        return bootstrap_interval(self.image_scores, self.patients)

    def lines(self) -> list[str]:
        """Describe the result for a reader."""
        return list(_describe(self))


def score_submission(
    path: Path, truth_path: Path, classes_path: Path | None = None
) -> LeaderboardResult:
    """Score a submission as the challenge does.

    Args:
        path: a submission with a row for each image of the truth.
        truth_path: labels in the form of stage_2_train_labels.csv; may have a column class, and
            groupId, which the images of one patient share.
        classes_path: patientId, class; without classes the result tells less.

    Raises:
        SubmissionError: the submission is missing or wrong, or is of other images.
        AnnotationsError: a label file is missing or wrong.
    """
    return score_boxes(*read_with_truth(path, truth_path, classes_path))


def read_with_truth(
    path: Path, truth_path: Path, classes_path: Path | None = None
) -> tuple[Mapping[str, Sequence[SubmittedBox]], Sequence[Record]]:
    """Read a submission and the truth of the same images: see `score_submission`."""
    submitted = read_submission(path)
    records = read_label_files(truth_path, classes_path, needs_classes=False)
    paths = [path for path in (truth_path, classes_path) if path is not None]
    records = with_groups(records, read_group_column(paths))
    _check_patients(path, submitted, truth_path, records)
    return submitted, records


def score_boxes(
    submitted: Mapping[str, Sequence[SubmittedBox]], records: Sequence[Record]
) -> LeaderboardResult:
    """Score boxes against the truth of the same images.

    Args:
        submitted: patientId -> boxes in any order; of equal confidences the first comes first.
        records: the truth of each patient, sorted.
    """
    predicted, _, true = boxes_of_images(submitted, records)
    precisions = [image_scores(predicted, true, (threshold,)) for threshold in IOU_THRESHOLDS]
    return LeaderboardResult(
        ids=tuple(record.patient_id for record in records),
        patients=number_patients([record.group_id for record in records]),
        categories=np.array([record.category for record in records]),
        n_true=true.counts(),
        n_predicted=predicted.counts(),
        precisions=np.array(precisions),
    )


def boxes_of_images(
    submitted: Mapping[str, Sequence[SubmittedBox]], records: Sequence[Record]
) -> tuple[Boxes, FloatArray, Boxes]:
    """Lay out the boxes of all images in the order of the records.

    Returns:
        The submitted boxes, best first within each image; their confidences (K,); the true boxes.
    """
    tables = []
    for record in records:
        boxes = submitted[record.patient_id]
        table = np.array(boxes, dtype=np.float64).reshape(-1, len(SubmittedBox._fields))
        tables.append(table[np.argsort(-table[:, 0], kind="stable")])
    confidences = np.concatenate([table[:, 0] for table in tables])
    predicted = _gather([table[:, 1:] for table in tables])
    return predicted, confidences, _gather([record.boxes_xywh for record in records])


def _check_patients(
    path: Path, submitted: Mapping[str, object], truth_path: Path, records: Sequence[Record]
) -> None:
    """Refuse a submission of other images than the truth's."""
    true = {record.patient_id for record in records}
    problems = []
    for patients, what in ((true - set(submitted), "are missing"),
                           (set(submitted) - true, f"are not in {truth_path}")):  # fmt: skip
        if patients:
            problems.append(
                f"{len(patients)} patients {what}, the first is {cut_text(min(patients))}"
            )
    if problems:
        raise SubmissionError(f"{path}: {'; '.join(problems)}")


def _gather(images: Sequence[FloatArray]) -> Boxes:
    counts = [len(boxes) for boxes in images]
    return Boxes(np.concatenate(images), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _describe(result: LeaderboardResult) -> Iterator[str]:
    n_images, n_with_truth = len(result.ids), int((result.n_true > 0).sum())
    yield (
        f"{n_images} images: {int(result.n_predicted.sum())} boxes submitted, "
        f"{int(result.n_true.sum())} true"
    )
    if result.n_counted == 0:
        yield "no score: no image has true boxes, and none is predicted"
        return
    low, high = result.interval()
    yield f"score {result.score:.5f} (95 % of bootstrap draws {low:.5f} to {high:.5f})"
    yield (
        f"{result.n_counted} images count: {n_with_truth} with true boxes, and false alarms in "
        f"{result.n_false_alarms} of the {n_images - n_with_truth} without"
    )
    names = result.groups()
    width = max(map(len, names))
    yield f"{'':{width}}  images  with boxes submitted  counted    score"
    for name, images in names.items():
        n_found = int((images & (result.n_predicted > 0)).sum())
        n_counted = int((images & result.counted).sum())
        score = f"{result.class_scores[name]:.5f}" if n_counted else "-"
        yield f"{name:{width}}  {images.sum():6}  {n_found:20}  {n_counted:7}  {score:>7}"
    yield "IoU    " + "  ".join(f"{threshold:7.2f}" for threshold in result.iou_scores)
    yield "score  " + "  ".join(f"{score:7.5f}" for score in result.iou_scores.values())
