"""How much of a GPU's memory work takes: at most, and for each image of a training step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from src.experiments.experiment import Experiment
from src.experiments.networks import build_model

Work = Callable[[], object]
BOX_LEVELS = (4, 5)  # which nearly all boxes need, docs/performance.md


def gpu_peak(make: Callable[[], Work]) -> tuple[Work, int]:
    """Make some work and run it on the GPU, whatever else lies there.

    Returns:
        The work, warm, and the bytes that it takes at most by itself.

    Raises:
        OutOfMemoryError: it does not fit.
    """
    before = torch.cuda.memory_allocated()
    work = make()
    work()  # cuDNN tries its algorithms, Adam makes its state
    torch.cuda.reset_peak_memory_stats()
    work()
    return work, torch.cuda.max_memory_allocated() - before


def kept_bytes(experiment: Experiment, dtype: torch.dtype = torch.bfloat16) -> int:
    """Count what a training step keeps of one image until its backward pass.

    Counted on tensors without numbers. The box head runs on the levels that most boxes need.
    """
    with torch.device("meta"):
        model = build_model(experiment).train().to(dtype)
        images = torch.empty(2, 1, experiment.img_size, experiment.img_size, dtype=dtype)

    def keep_of(n_images: int) -> int:
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            pyramid = model.score(images[:n_images]).pyramid
            for level, features in zip(model.levels, pyramid, strict=True):
                if level in BOX_LEVELS:
                    model.box_head(features)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    return keep_of(2) - keep_of(1)  # without the weights, which both keep
