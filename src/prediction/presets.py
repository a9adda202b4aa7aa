"""How boxes are chosen from what networks say: gates, one record of settings, and its presets.

Needs the standard library alone: a command line names gates and presets before anything else is
imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from src.system.errors import InputError

SCORE_FACTOR = 5.0  # the original release
CATEGORY_FACTOR = 10.0  # the second place
NOT_NORMAL_WEIGHT = 0.1  # of that class in an image's category; the second place
SIZE_RULES = ("percentile", "mean")
DEFAULT_THRESHOLD = 0.3  # on score x 5, where check_metric was not run; the second place's default
NMS_IOU = 0.05  # opacities do not overlap; the original release
SECOND_PLACE_SHRINK = 0.875  # the second place, in place of the percentiles
SECOND_PLACE_K = 0.9  # the second place's script
PAPER_K = 1.6  # the paper's text


@dataclass(frozen=True)
class Gate:
    """What a box's threshold is compared with.

    Attributes:
        formula: for readers; category is P(opacity) + .1 P(not normal) of the image.
        value: of the scores and the categories of their images, arrays of one length.
    """

    formula: str
    value: Callable[[Any, Any], Any]


GATES = {
    "score": Gate("score × 5", lambda score, category: score * SCORE_FACTOR),
    "score_category": Gate(
        "score × category × 10", lambda score, category: score * category * CATEGORY_FACTOR
    ),
    "sqrt_score_category": Gate(
        "√(score × category) × 5",
        lambda score, category: (score * category) ** 0.5 * SCORE_FACTOR,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Postprocess:
    """How boxes are chosen from what networks say.

    Attributes:
        preset: what the settings started from, a key of `PRESETS`.
        gate: what is compared with the threshold, a key of `GATES`.
        threshold: a box counts when its gate is greater.
        threshold_from: "flag", "preset", "check_metric, epoch 3", or "default", which gives way
            to check_metric's best threshold.
        nms: IoU over which the weaker of two boxes is dropped.
        shrink: factor on the sides of every box, about its centre, after the suppression.
        size_rule: how an ensemble combines dw and dh; see `retinanet.ensemble.Ensemble`.
        k: of the percentile rule; None for the mean.
    """

    preset: str = "plain"
    gate: str = "score"
    threshold: float = DEFAULT_THRESHOLD
    threshold_from: str = "default"
    nms: float = NMS_IOU
    shrink: float = 1.0
    size_rule: Literal["percentile", "mean"] = "mean"
    k: float | None = None

    def __post_init__(self) -> None:
        if self.gate not in GATES:
            raise ValueError(f"gate {self.gate!r} does not exist; one of {', '.join(GATES)}")

    @property
    def threshold_is_open(self) -> bool:
        """Say whether neither a flag nor the preset has set the threshold, nor check_metric."""
        return self.threshold_from == "default"


PRESETS = {
    postprocess.preset: postprocess
    for postprocess in (
        Postprocess(preset="plain"),
        Postprocess(preset="paper", size_rule="percentile", k=PAPER_K),
        Postprocess(
            preset="second-place",
            threshold_from="preset",
            shrink=SECOND_PLACE_SHRINK,
            size_rule="percentile",
            k=SECOND_PLACE_K,
        ),
    )
}
DEFAULT_ALONE = "plain"
DEFAULT_COMBINED = "second-place"


def choose_postprocess(
    preset: str | None, flags: Mapping[str, Any], *, combines: bool
) -> Postprocess:
    """Take a preset, and in place of its values those that flags name.

    A preset shrinks the boxes of one network alone; those of several are small by percentiles.

    Args:
        preset: a key of `PRESETS`; None takes "plain" for one network, "second-place" for several.
        flags: values for fields of `Postprocess`; None leaves the preset's.
        combines: whether the outputs of several networks are combined; for one alone nothing is
            left of the size rule.

    Raises:
        InputError: a k for sizes that are averaged.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    postprocess = PRESETS[preset or (DEFAULT_COMBINED if combines else DEFAULT_ALONE)]
    if "threshold" in given:
        postprocess = replace(postprocess, threshold_from="flag")
    postprocess = replace(postprocess, **given)
    if not combines:
        return replace(postprocess, size_rule="mean", k=None)
    postprocess = replace(postprocess, shrink=given.get("shrink", 1.0))
    if postprocess.size_rule == "percentile":
        return replace(postprocess, k=SECOND_PLACE_K if postprocess.k is None else postprocess.k)
    if "k" in given:
        raise InputError(f"--k {given['k']:g}: the sizes are averaged; --combine percentile uses k")
    return replace(postprocess, k=None)
