"""Several networks as one: folds, epochs and mirrored images combined on raw outputs.

What won the second place (paper, section 5) and was never in the paper's own release: scores,
dx, dy and class probabilities are averaged; dw and dh take a low percentile, for the challenge's
test boxes are the intersections of three readers' and so smaller than the training boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from src.retinanet.anchors import N_ANCHORS_PER_POSITION, grid_size
from src.retinanet.model import RetinaNet
from src.retinanet.postprocess import MIN_SCORE
from src.structures import RawOutputs

SizeRule = Literal["percentile", "mean"]
LOW, HIGH = 0.2, 0.8  # the percentiles: dw, dh = p20 + k (p20 - p80)


class Ensemble(nn.Module):
    """Runs every member over a batch and combines what they say.

    A batch of B images with A anchors takes M x B x A x 2 numbers for the sizes of M members,
    100 MB for 16 members, 4 images and the paper's 512 px; nothing is written to disk. One member
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
            members: networks with the same pyramid levels.
            weights: of the members in the means; None weighs all alike. The percentiles count
                every member once.
            size_rule: how dw and dh are combined.
            k: of the percentiles: how far below the 20th, in units of the spread from the 20th to
                the 80th.
            hflip: show every member the mirrored image as well.

        Raises:
            ValueError: no members, members of different levels, or weights that do not fit.
        """
        super().__init__()
        if not members or len({member.levels for member in members}) > 1:
            raise ValueError("an ensemble needs members, all with the same pyramid levels")
        weights = [1.0] * len(members) if weights is None else list(weights)
        if len(weights) != len(members) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"{len(members)} members need as many positive weights, not {weights}")
        self.members = nn.ModuleList(members)
        self.weights = [weight / sum(weights) for weight in weights]
        self.size_rule = size_rule
        self.k = k
        self.hflip = hflip

    def anchors(self, images: Tensor) -> Tensor:
        """Return the anchors (A, 4) for images (B, 1, H, W)."""
        first = self.members[0]
        assert isinstance(first, RetinaNet)
        return first.anchors(images)

    def forward(self, images: Tensor) -> RawOutputs:
        """Run all members.

        Args:
            images: (B, 1, H, W) in [0, 1].

        Returns:
            Combined outputs. dw and dh follow `size_rule` where the score can still become a
            candidate; elsewhere, where nobody looks, they are means.
        """
        outputs: list[RawOutputs] = []
        weights: list[float] = []
        for member, weight in zip(self.members, self.weights, strict=True):
            outputs.append(member(images))
            weights.append(weight)
            if self.hflip:
                assert isinstance(member, RetinaNet)
                outputs.append(_run_mirrored(member, images))
                weights = [*weights[:-1], weight / 2, weight / 2]
        if len(outputs) == 1:
            return outputs[0]
        scores = _mean([output.scores for output in outputs], weights)
        deltas = _mean([output.deltas for output in outputs], weights)
        if self.size_rule == "percentile":
            counted = scores > MIN_SCORE
            sizes = torch.stack([output.deltas[counted][:, 2:] for output in outputs])  # (M, N, 2)
            if sizes.shape[1]:
                deltas[counted] = torch.cat(
                    [deltas[counted][:, :2], low_percentile(sizes, self.k)], dim=1
                )
        probs = _mean([output.class_log_probs.exp() for output in outputs], weights)
        return RawOutputs(scores, deltas, probs.log())


def low_percentile(sizes: Tensor, k: float) -> Tensor:
    """Combine log-sizes of members: p20 + k (p20 - p80).

    Args:
        sizes: (M, ..., 2) dw, dh of each member.

    Returns:
        (..., 2).
    """
    low, high = torch.quantile(sizes, torch.tensor([LOW, HIGH], device=sizes.device), dim=0)
    return low + k * (low - high)


def mirror_outputs(
    outputs: RawOutputs, image_size: tuple[int, int], levels: Sequence[int]
) -> RawOutputs:
    """Turn the outputs for mirrored images into those for the images themselves.

    Args:
        outputs: of images that were mirrored left to right.
        image_size: height and width of the network input.
        levels: of the pyramid.
    """
    order = _mirrored_order(image_size, levels).to(outputs.scores.device)
    sign = outputs.deltas.new_tensor([-1, 1, 1, 1])  # what lay to the left lies to the right
    return RawOutputs(
        outputs.scores[:, order], outputs.deltas[:, order] * sign, outputs.class_log_probs
    )


def _run_mirrored(member: RetinaNet, images: Tensor) -> RawOutputs:
    size = (images.shape[-2], images.shape[-1])
    return mirror_outputs(member(images.flip(-1)), size, member.levels)


def _mirrored_order(image_size: tuple[int, int], levels: Sequence[int]) -> Tensor:
    """Return for each anchor the index of its mirror image: (A,)."""
    parts, start = [], 0
    for level in levels:
        rows, columns = grid_size(image_size, 2**level)
        n_anchors = rows * columns * N_ANCHORS_PER_POSITION
        grid = torch.arange(start, start + n_anchors).view(rows, columns, N_ANCHORS_PER_POSITION)
        parts.append(grid.flip(1).reshape(-1))
        start += n_anchors
    return torch.cat(parts)


def _mean(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total
