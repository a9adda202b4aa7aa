"""How the boxes of several detectors become one set: the ways of fusing, and what each needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from src.system.errors import InputError
from src.system.records import show_value

DEFAULT_IOU = 0.5
DEFAULT_SIGMA = 0.5  # of the Gaussian; Bodla et al. 2017

Decay = Literal["gaussian", "linear"]
Average = Literal["mean", "median"]

# Each way of fusing, and the settings it has.
METHODS: dict[str, tuple[str, ...]] = {
    "nms": ("iou",),
    "soft-nms": ("decay", "sigma", "iou"),
    "wbf": ("iou",),
    "vote": ("iou", "min_votes", "average"),
}
USED_BY_DECAY = {"gaussian": "sigma", "linear": "iou"}


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How the boxes of several detectors become one set; what a method does not use is None.

    Attributes:
        method: a key of `METHODS`.
        iou: above which two boxes overlap.
        decay, sigma: see `fuse_by_soft_nms`.
        min_votes, average: see `fuse_by_vote`.
        skip_below: boxes of a lower score are left out before all else, whatever their weight.
        threshold: fused boxes of a lower score are left out in the end.

    Raises:
        ValueError: there is no such method.
    """

    method: str
    iou: float | None = None
    decay: Decay | None = None
    sigma: float | None = None
    min_votes: int | None = None
    average: Average | None = None
    skip_below: float = 0.0
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method cannot be {show_value(self.method)}")

    def settings(self) -> dict[str, Any]:
        """Return what the method uses: the options of its function."""
        values = {name: getattr(self, name) for name in METHODS[self.method]}
        return {name: value for name, value in values.items() if value is not None}

    def describe(self) -> dict[str, Any]:
        """Write out all that is set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def choose_fusion(method: str, flags: Mapping[str, Any], *, n_detectors: int) -> Fusion:
    """Fill in what flags leave open. A vote needs more than half of the detectors by default.

    Args:
        method: a key of `METHODS`.
        flags: values for fields of `Fusion`; None takes the default.

    Raises:
        InputError: the method does not use a value, or there are fewer detectors than votes.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    used = set(METHODS[method])
    decay = given.get("decay", "gaussian")
    if method == "soft-nms":
        used -= set(USED_BY_DECAY.values()) - {USED_BY_DECAY[decay]}
    for name in given:
        if name not in used | {"skip_below", "threshold"}:
            chosen = f"{method} --decay {decay}" if name in METHODS[method] else method
            raise InputError(f"--{name.replace('_', '-')} has no effect with --method {chosen}")
    if given.get("min_votes", 0) > n_detectors:
        raise InputError(f"--min-votes {given['min_votes']}: there are only {n_detectors} inputs")
    defaults = {
        "iou": DEFAULT_IOU,
        "decay": "gaussian",
        "sigma": DEFAULT_SIGMA,
        "min_votes": n_detectors // 2 + 1,
        "average": "mean",
    }
    settings: dict[str, Any] = {name: defaults[name] for name in used} | given
    return Fusion(method=method, **settings)
