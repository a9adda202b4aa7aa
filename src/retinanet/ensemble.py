"""Several networks as one: folds, epochs and mirrored images combined on raw outputs.

What won the second place (paper, section 5) and was never in the paper's own release: scores,
dx, dy and class probabilities are averaged; dw and dh take a low percentile, because the
challenge's test boxes are the intersections of three readers' boxes and so smaller than those of
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
            hflip: show every member the mirrored image as well; it counts on the levels whose
                stride divides the width, see `turn_back`.

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
        self.size_rule = size_rule
        self.k = k
        self.hflip = hflip
        n_views = 2 if hflip else 1
        shares = [weight / sum(weights) / n_views for weight in weights]
        self._weights = [share for share in shares for _ in range(n_views)]

    @property
    def limits(self) -> CandidateLimits:
        """Return which of the combined outputs become candidates."""
        return self.networks()[0].limits

    def anchors(self, images: Tensor) -> Tensor:
        """Return the anchors (A, 4) for images (B, 1, H, W)."""
        return self.networks()[0].anchors(images)

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
        networks = self.networks()
        size = (images.shape[-2], images.shape[-1])
        by_network = [self._score(network, images) for network in networks]
        scored = [view for views in by_network for view in views]
        scores = _mean([view.scores for view in scored], self._weights)
        needed = None
        if min_score is not None:
            needed = networks[0].by_level(scores > min_score, images)
        located = [
            deltas
            for network, views in zip(networks, by_network, strict=True)
            for deltas in self._locate(network, views, needed, size)
        ]
        deltas = _mean(located, self._weights)
        if self.size_rule == "percentile" and len(located) > 1:
            least = self.limits.min_score if min_score is None else min_score
            image, anchor = (scores > least).nonzero(as_tuple=True)
            if len(image):
                sizes = torch.stack([one[image, anchor, 2:] for one in located])  # (M, N, 2)
                deltas[image, anchor, 2:] = low_percentile(sizes, self.k)
        if len(scored) == 1:
            return RawOutputs(scores, deltas, scored[0].class_log_probs)
        probs = _mean([view.class_log_probs.exp() for view in scored], self._weights)
        return RawOutputs(scores, deltas, probs.log())

    def networks(self) -> list[RetinaNet]:
        """Return the members."""
        return [member for member in self.members if isinstance(member, RetinaNet)]

    def _score(self, network: RetinaNet, images: Tensor) -> list[Scored]:
        """Run a member over the images and, with `hflip`, over their mirror images.

        The scores of mirror images are turned back; their pyramids are not.
        """
        plain = network.score(images)
        if not self.hflip:
            return [plain]
        mirrored = network.score(images.flip(-1))
        size = (images.shape[-2], images.shape[-1])
        scores = turn_back(mirrored.scores, plain.scores, size, network.levels)
        return [plain, mirrored._replace(scores=scores)]

    def _locate(
        self,
        network: RetinaNet,
        views: Sequence[Scored],
        needed: Tensor | None,
        image_size: tuple[int, int],
    ) -> list[Tensor]:
        """Run a member's box head over what `_score` returns: (B, A, 4) deltas of each view."""
        deltas = [network.locate(view.pyramid, needed) for view in views]
        if not self.hflip:
            return deltas
        plain, mirrored = deltas
        return [plain, turn_back_deltas(mirrored, plain, image_size, network.levels)]


def low_percentile(sizes: Tensor, k: float) -> Tensor:
    """Combine log-sizes of members: p20 + k (p20 - p80).

    Args:
        sizes: (M, ..., 2) dw, dh of each member.

    Returns:
        (..., 2).
    """
    low, high = (torch.quantile(sizes, share, dim=0) for share in (LOW, HIGH))
    return low + k * (low - high)


def turn_back_deltas(
    mirrored: Tensor, plain: Tensor, image_size: tuple[int, int], levels: Sequence[int]
) -> Tensor:
    """Turn back the deltas (B, A, 4) for mirrored images; as `turn_back`."""
    signed = torch.cat([-mirrored[..., :1], mirrored[..., 1:]], dim=-1)  # what lay to the left
    return turn_back(signed, plain, image_size, levels)


def turn_back(
    mirrored: Tensor, plain: Tensor, image_size: tuple[int, int], levels: Sequence[int]
) -> Tensor:
    """Give every anchor the value that its mirror image has for the mirrored image.

    A level whose stride does not divide the width has a column that leaves the image, so that its
    anchors are not the mirror images of one another. Moving the boxes by the difference would not
    be enough: the scores would still be those of anchors at other places. Such a level therefore
    takes the values for the image as it is, and mirroring does not change its outputs.

    Args:
        mirrored: (B, A, ...) for the mirrored images.
        plain: (B, A, ...) for the images as they are.
        image_size: height and width of the network input.
        levels: of the pyramid, ascending: those without mirror images are the last.
    """
    order = _mirrored_order(image_size, levels, mirrored.shape[1], mirrored.device)
    return torch.cat([mirrored[:, order], plain[:, len(order) :]], dim=1)


def _mirrored_order(
    image_size: tuple[int, int], levels: Sequence[int], n_anchors: int, device: torch.device
) -> Tensor:
    """Return for each anchor that has a mirror image the index of that: (at most A,)."""
    grids = [grid_size(image_size, 2**level) for level in levels]
    n_per_position = n_anchors // sum(rows * columns for rows, columns in grids)
    parts, start = [], 0
    for level, (rows, columns) in zip(levels, grids, strict=True):
        if image_size[1] % 2**level:
            break
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
