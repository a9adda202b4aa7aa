"""Probabilities of an opacity by any classifier, in place of the global head's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.datasets.tables import AnnotationsError, read_table, refuse_rows
from src.prediction.predictions import Predictions
from src.structures import CLASS_NAMES, NORMAL, OPACITY
from src.system.records import cut_text

COLUMNS = ["patientId", "probability"]


def read_image_scores(path: Path) -> dict[str, float]:
    """Read a CSV of `COLUMNS`: patientId -> probability in [0, 1].

    Raises:
        AnnotationsError: this is no such table; the first row that is wrong is named.
    """
    table = read_table(path, COLUMNS)
    refuse_rows(path, table, table.duplicated("patientId"), "patient {patientId} again")
    values = table["probability"].map(_probability)
    problem = "probability {probability!r} is not a number from 0 to 1"
    refuse_rows(path, table, values.isna(), problem)
    return dict(zip(table["patientId"], values, strict=True))


def with_image_scores(
    predictions: Predictions, scores: Mapping[str, float], path: Path
) -> Predictions:
    """Take another classifier's probabilities for those of the global head.

    An image is an opacity with the probability, else normal: so the gates' category is the
    probability itself.

    Args:
        path: of the scores, for messages.

    Raises:
        AnnotationsError: an image has no score.
    """
    missing = [patient for patient in predictions.patient_ids if patient not in scores]
    if missing:
        raise AnnotationsError(
            f"{path}: has no probability of {len(missing)} images, {cut_text(missing[0])} among "
            f"them"
        )
    opacity = np.array([scores[patient] for patient in predictions.patient_ids], dtype=np.float32)
    class_probs = np.zeros((len(opacity), len(CLASS_NAMES)), dtype=np.float32)
    class_probs[:, OPACITY], class_probs[:, NORMAL] = opacity, 1 - opacity
    provenance = replace(predictions.provenance, image_scores=str(path))
    return replace(predictions, class_probs=class_probs, provenance=provenance)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if 0 <= value <= 1 else math.nan
