"""Every number for parts of the images: by view, sex, age, or any table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from src.metric import Boxes, FloatArray, IntArray, bootstrap_interval, mean_score
from src.scoring.quoted_numbers import N_DRAWS, NumberResult, compute_numbers
from src.scoring.scored_images import ScoredImages
from src.scoring.sweep import ScoresError
from src.system.records import cut_text

SMALL = 30  # images, or images with an opacity, below which a number says little
UNKNOWN = "unknown"  # the group of images that a table does not sort


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some of the images, and their numbers.

    Attributes:
        column: of the table that sorts the images.
        name: the value that they have there.
        n_images: of them.
        n_opacities: images with true boxes among them.
        results: the challenge's score first, then those of `compute_numbers`.
    """

    column: str
    name: str
    n_images: int
    n_opacities: int
    results: list[NumberResult]

    @property
    def is_small(self) -> bool:
        """Say whether the numbers rest on few images."""
        return min(self.n_opacities, self.n_images) < SMALL


def group_numbers(
    data: ScoredImages,
    image_scores: FloatArray,
    table: Mapping[str, Mapping[str, str]],
    *,
    n_draws: int = N_DRAWS,
) -> Iterator[Group]:
    """Compute the numbers of each group of images, column by column, in order of the names.

    Args:
        data: of all images.
        image_scores: (I,) the challenge's score of each, NaN where it does not count.
        table: column -> id -> the name of the image's group; an image that is missing, or whose
            cell is empty, is of the group `UNKNOWN`.

    Raises:
        ScoresError: it names none of the images.
    """
    if table and not any(image in names for names in table.values() for image in data.ids):
        raise ScoresError(
            f"--groups: the table names none of the images, {cut_text(data.ids[0])} among "
            f"them; its patientIds must be written as those of the labels"
        )
    for column, names in table.items():
        groups = np.array([names.get(image) or UNKNOWN for image in data.ids])
        for name in sorted(set(groups.tolist())):
            rows = np.flatnonzero(groups == name)
            part = take_scored(data, rows)
            yield Group(
                column=column,
                name=name,
                n_images=len(rows),
                n_opacities=int(part.has_opacity.sum()),
                results=[
                    score_result(image_scores[rows], part.patients),
                    *compute_numbers(part, n_draws),
                ],
            )


def score_result(image_scores: FloatArray, patients: IntArray) -> NumberResult:
    """Return the challenge's score as one of the numbers.

    Args:
        image_scores: (I,) NaN where an image does not count.
        patients: (I,) the patient that each image belongs to.
    """
    value = mean_score(image_scores)
    interval = bootstrap_interval(image_scores, patients)
    return NumberResult("score", "", value, *interval, "the challenge's score at this setting")


def take_scored(data: ScoredImages, rows: IntArray) -> ScoredImages:
    """Keep some images, in the order that is given."""
    predicted, kept = _take_boxes(data.predicted, rows)
    return replace(
        data,
        ids=[data.ids[row] for row in rows],
        patients=data.patients[rows],
        predicted=predicted,
        scores=data.scores[kept],
        true=_take_boxes(data.true, rows)[0],
        image_scores={name: scores[rows] for name, scores in data.image_scores.items()},
    )


def _take_boxes(boxes: Boxes, images: Sequence[int] | IntArray) -> tuple[Boxes, IntArray]:
    """Return the boxes of some images, and their rows."""
    parts = [np.arange(*boxes.offsets[image : image + 2]) for image in images]
    rows = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return Boxes(boxes.xywh[rows], offsets), rows
