"""Several networks as one: folds, epochs and mirrored images combined on raw outputs.

What won the second place (paper, section 5) and was never in the paper's own release: scores,
dx, dy and class probabilities are averaged; dw and dh take a low percentile, because the
challenge's test boxes are the intersections of three readers' boxes and so smaller than those of
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from src.retinanet.anchors import grid_size
from src.retinanet.model import RetinaNet, Scored
from src.retinanet.settings import CandidateLimits
from src.structures import RawOutputs

SizeRule = Literal["percentile", "mean"]
LOW, HIGH = 0.2, 0.8  # the percentiles: dw, dh = p20 + k (p20 - p80)


class Ensemble(nn.Module):
    """Runs every member over a batch and combines what they say.

    For each image and member the pyramid and the outputs are held, 27 MB at the paper's 512 px in
    float32, 1.7 GB for 16 members and 4 images; nothing is written to disk. One member
    without mirroring gives exactly its own outputs.
    """

    def __init__(
        self,
        members: Sequence[RetinaNet],
        *,
        weights: Sequence[float] | None = None,
        size_rule: SizeRule = "mean",
        k: float = 0.0,
        hflip: bool = False,
    ) -> None:
        """Put networks together.

        Args:
            members: networks with the same pyramid levels, anchors and limits.
            weights: of the members in the means; None weighs all alike. The percentiles count
                every member once.
            size_rule: how dw and dh are combined.
            k: of the percentiles: how far below the 20th, in units of the spread from the 20th to
                the 80th.
            hflip: show every member the mirrored image as well.

        Raises:
            ValueError: no members, members that do not agree, or weights that do not fit.
        """
        super().__init__()
        if not members or len({(one.levels, one.anchor_shapes, one.limits) for one in members}) > 1:
            raise ValueError("an ensemble needs members, all with the same levels and anchors")
        weights = [1.0] * len(members) if weights is None else list(weights)
        if len(weights) != len(members) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"{len(members)} members need as many positive weights, not {weights}")
        self.members = nn.ModuleList(members)
        self.weights = [weight / sum(weights) for weight in weights]
        self.size_rule = size_rule
        self.k = k
        self.hflip = hflip

    @property
    def limits(self) -> CandidateLimits:
        """Return which of the combined outputs become candidates."""
        return self.networks()[0].limits

    def anchors(self, images: Tensor) -> Tensor:
        """Return the anchors (A, 4) for images (B, 1, H, W)."""
        return self._passes()[0].member.anchors(images)

    def forward(self, images: Tensor, *, min_score: float | None = None) -> RawOutputs:
        """Run all members.

        The pyramids of all members stay in memory until the boxes are located.

        Args:
            images: (B, 1, H, W) in [0, 1].
            min_score: boxes are located only on levels where a combined score is greater; other
                deltas are 0. None locates all, and combines sizes where boxes can be candidates.

        Returns:
            Combined outputs. dw and dh follow `size_rule` where the score is greater; elsewhere
            they are not used, and are means.
        """
        passes = self._passes()
        weights = [one.weight for one in passes]
        scored = [one.score(images) for one in passes]
        scores = _mean([one.scores for one in scored], weights)
        needed = None
        if min_score is not None:
            needed = passes[0].member.by_level(scores > min_score, images)
        located = [
            one.locate(images, its.pyramid, needed) for one, its in zip(passes, scored, strict=True)
        ]
        deltas = _mean(located, weights)
        if self.size_rule == "percentile" and len(passes) > 1:
            least = self.limits.min_score if min_score is None else min_score
            image, anchor = (scores > least).nonzero(as_tuple=True)
            if len(image):
                sizes = torch.stack([one[image, anchor, 2:] for one in located])  # (M, N, 2)
                deltas[image, anchor, 2:] = low_percentile(sizes, self.k)
        if len(passes) == 1:
            return RawOutputs(scores, deltas, scored[0].class_log_probs)
        probs = _mean([one.class_log_probs.exp() for one in scored], weights)
        return RawOutputs(scores, deltas, probs.log())

    def networks(self) -> list[RetinaNet]:
        """Return the members."""
        return [member for member in self.members if isinstance(member, RetinaNet)]

    def _passes(self) -> list[_Pass]:
        passes = []
        for member, weight in zip(self.networks(), self.weights, strict=True):
            if self.hflip:
                passes += [_Pass(member, weight / 2, mirrored) for mirrored in (False, True)]
            else:
                passes.append(_Pass(member, weight, mirrored=False))
        return passes


class _Pass(NamedTuple):
    """One member over the images as they are, or over their mirror images.

    What comes out is turned back, but for the pyramid.
    """

    member: RetinaNet
    weight: float
    mirrored: bool

    def score(self, images: Tensor) -> Scored:
        if not self.mirrored:
            return self.member.score(images)
        scored = self.member.score(images.flip(-1))
        size = (images.shape[-2], images.shape[-1])
        return scored._replace(scores=mirror_anchors(scored.scores, size, self.member.levels))

    def locate(self, images: Tensor, pyramid: list[Tensor], needed: Tensor | None) -> Tensor:
        deltas = self.member.locate(pyramid, needed)
        if not self.mirrored:
            return deltas
        size = (images.shape[-2], images.shape[-1])
        return mirror_deltas(deltas, size, self.member.levels)


def low_percentile(sizes: Tensor, k: float) -> Tensor:
    """Combine log-sizes of members: p20 + k (p20 - p80).

    Args:
        sizes: (M, ..., 2) dw, dh of each member.

    Returns:
        (..., 2).
    """
    low, high = (torch.quantile(sizes, share, dim=0) for share in (LOW, HIGH))
    return low + k * (low - high)


def mirror_deltas(deltas: Tensor, image_size: tuple[int, int], levels: Sequence[int]) -> Tensor:
    """Turn the deltas (B, A, 4) for mirrored images into those for the images themselves."""
    mirrored = mirror_anchors(deltas, image_size, levels)
    return torch.cat([-mirrored[..., :1], mirrored[..., 1:]], dim=-1)  # what lay to the left


def mirror_anchors(values: Tensor, image_size: tuple[int, int], levels: Sequence[int]) -> Tensor:
    """Give every anchor the value of the one that lies opposite.

    Args:
        values: (B, A, ...).
        image_size: height and width of the network input.
        levels: of the pyramid.
    """
    return values[:, _mirrored_order(image_size, levels, values.shape[1], values.device)]


def _mirrored_order(
    image_size: tuple[int, int], levels: Sequence[int], n_anchors: int, device: torch.device
) -> Tensor:
    """Return for each anchor the index of its mirror image: (A,)."""
    grids = [grid_size(image_size, 2**level) for level in levels]
    n_per_position = n_anchors // sum(rows * columns for rows, columns in grids)
    parts, start = [], 0
    for rows, columns in grids:
        n_anchors = rows * columns * n_per_position
        grid = torch.arange(start, start + n_anchors, device=device)
        grid = grid.view(rows, columns, n_per_position)
        parts.append(grid.flip(1).reshape(-1))
        start += n_anchors
    return torch.cat(parts)


def _mean(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    if len(values) == 1:
        return values[0]
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total
