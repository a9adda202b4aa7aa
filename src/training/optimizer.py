"""What moves the weights: optimizer, and the schedule of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
)

from src.experiments.checkpoints import TrainingState
from src.experiments.experiment import Experiment
from src.retinanet.model import RetinaNet
from src.training.average import WeightAverage, tensor_like
from src.training.parameter_groups import group_by_part, group_by_rule

MIN_LOSS_SCALE = 2**-10  # where even this overflows, the numbers themselves are spoilt
PLATEAU_PATIENCE = 4
PLATEAU_FACTOR = 0.2
SGD_MOMENTUM = 0.95  # this and the next two: the second place's training script
SGD_MILESTONES = (8, 16, 20)
SGD_FACTOR = 0.1
AVERAGE_PREFIX = "average."  # of tensors that are not the optimizer's
FIXED = ("milestones",)  # of a scheduler's state: the experiment gives it, and JSON cannot


def make_optimizer(model: RetinaNet, experiment: Experiment) -> Optimizer:
    """Make the experiment's optimizer: Adam without weight decay, AdamW, or SGD."""
    rate = experiment.learning_rate
    fused = next(model.parameters()).is_cuda  # one kernel for all parameters
    if experiment.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=rate, fused=fused)
    if experiment.optimizer == "adamw":
        return torch.optim.AdamW(group_by_rule(model, experiment), lr=rate, fused=fused)
    groups = group_by_part(model, experiment)
    return torch.optim.SGD(groups, lr=rate, momentum=SGD_MOMENTUM, fused=fused)


class Optimization:
    """Optimizer, learning rate, gradients, and the average of the weights of one training."""

    def __init__(
        self,
        model: RetinaNet,
        experiment: Experiment,
        *,
        steps_per_epoch: int,
        scales_loss: bool = False,
    ) -> None:
        """Put the parts together.

        Args:
            scales_loss: multiply the loss, so that half precision (fp16) does not lose small
                gradients, and leave out steps where it overflows.
        """
        self.parameters = list(model.parameters())
        self.clip_norm = experiment.clip_norm
        self.steps_per_epoch = steps_per_epoch
        self.optimizer = make_optimizer(model, experiment)
        self.scheduler = Scheduler(self.optimizer, experiment, steps_per_epoch)
        self.clear_gradients()
        self.optimizer.step()  # moves nothing without gradients; schedulers expect it first
        self._own_rate = _find_group(self.optimizer, next(model.class_head.parameters()))
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=scales_loss)
        self.average = WeightAverage(model, experiment.ema_decay) if experiment.ema_decay else None

    @property
    def learning_rate(self) -> float:
        """Return the rate of the class head, which is the experiment's own."""
        return float(self.optimizer.param_groups[self._own_rate]["lr"])

    @property
    def guards_overflow(self) -> bool:
        """Say whether a gradient that is not finite can come from the loss's scale."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > MIN_LOSS_SCALE

    def clear_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def clip_gradients(self) -> Tensor:
        """Cut the gradient down to the experiment's norm; return the norm it had."""
        self.scaler.unscale_(self.optimizer)
        return nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)

    def step(self) -> None:
        """Move the weights and the learning rate."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.after_step()
        if self.average is not None:
            self.average.update()

    def averaged(self) -> AbstractContextManager[None]:
        """Let the network hold the average of its weights in the block, if one is kept."""
        return nullcontext() if self.average is None else self.average.in_place()

    def skip_epochs(self, n_epochs: int) -> None:
        """Move the learning rate on as if so many epochs had been trained."""
        self.scheduler.skip(n_epochs, self.steps_per_epoch)

    def skip_step(self) -> None:
        """Move the learning rate alone."""
        self.scaler.update()
        self.scheduler.after_step()

    def state(self) -> dict[str, Any]:
        """Return those fields of `TrainingState` that are its own, plain values."""
        return {
            "param_groups": tuple(self.optimizer.state_dict()["param_groups"]),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "n_averaged": self.average.n_steps if self.average else 0,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors by `<parameter>.<name>`, the average's by `average.*`."""
        tensors = {
            f"{index}.{name}": value
            for index, its in self.optimizer.state_dict()["state"].items()
            for name, value in its.items()
            if value is not None  # as SGD keeps for a parameter that has not moved yet
        }
        average = self.average.values if self.average else {}
        return tensors | {f"{AVERAGE_PREFIX}{name}": value for name, value in average.items()}

    def load_state(self, state: TrainingState, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a saved state; a wrong one raises KeyError, ValueError or TypeError."""
        own_groups = self.optimizer.param_groups
        groups = [
            _group_like(own, its) for own, its in zip(own_groups, state.param_groups, strict=True)
        ]
        parameters = dict(enumerate(one for group in own_groups for one in group["params"]))
        parts: dict[int, dict[str, Tensor]] = {}
        average: dict[str, Tensor] = {}
        for key, tensor in tensors.items():
            if key.startswith(AVERAGE_PREFIX):
                average[key.removeprefix(AVERAGE_PREFIX)] = tensor
                continue
            index, _, name = key.partition(".")
            own = parameters[int(index)]
            like = own if tensor.ndim else tensor  # the number of steps
            parts.setdefault(int(index), {})[name] = tensor_like(like, tensor)
        if self.average is not None:
            self.average.load(state.n_averaged, average)
        self.optimizer.load_state_dict({"state": parts, "param_groups": groups})
        self.scheduler.load_state_dict(state.scheduler)
        self.scaler.load_state_dict(state.scaler)


def _find_group(optimizer: Optimizer, parameter: nn.Parameter) -> int:
    """Return the place of the group that a parameter is in."""
    groups = [group["params"] for group in optimizer.param_groups]
    return next(i for i, group in enumerate(groups) if any(one is parameter for one in group))


def _group_like(own: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a saved group of parameters, which passed through JSON, to the form of our own."""
    group = {
        name: tuple(value) if isinstance(own.get(name), tuple) else value
        for name, value in saved.items()
    }
    return group | {"fused": own["fused"]}  # of the device, not of the training


class Scheduler:
    """Moves the learning rate: after each step, or after each epoch."""

    def __init__(self, optimizer: Optimizer, experiment: Experiment, steps_per_epoch: int) -> None:
        self.by_step: LRScheduler | None = None
        self.by_epoch: LRScheduler | None = None
        self.by_loss: ReduceLROnPlateau | None = None
        n_steps = experiment.n_epochs * steps_per_epoch
        if experiment.scheduler == "one_cycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            self.by_step = OneCycleLR(optimizer, peaks, total_steps=n_steps, cycle_momentum=False)
        elif experiment.scheduler == "cosine":
            self.by_step = LambdaLR(optimizer, _cosine(n_steps, experiment.warmup_share))
        elif experiment.scheduler == "milestones":
            self.by_epoch = MultiStepLR(optimizer, list(SGD_MILESTONES), gamma=SGD_FACTOR)
        else:
            self.by_loss = ReduceLROnPlateau(
                optimizer, patience=PLATEAU_PATIENCE, factor=PLATEAU_FACTOR
            )

    def after_step(self) -> None:
        if self.by_step is not None:
            self.by_step.step()

    def after_epoch(self, validation_regression_loss: float) -> None:
        if self.by_epoch is not None:
            self.by_epoch.step()
        if self.by_loss is not None:
            self.by_loss.step(validation_regression_loss)

    def skip(self, n_epochs: int, steps_per_epoch: int) -> None:
        """Move on as if so many epochs had been trained; what follows the loss stays."""
        for _ in range(n_epochs):
            for _ in range(steps_per_epoch):
                self.after_step()
            if self.by_epoch is not None:
                self.by_epoch.step()

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        state = self._active().state_dict()
        return {name: value for name, value in state.items() if name not in FIXED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; raises KeyError where a value is missing."""
        self._active().load_state_dict({name: state[name] for name in self.state_dict()})

    def _active(self) -> LRScheduler:
        active = self.by_step or self.by_epoch or self.by_loss
        assert active is not None
        return active


def _cosine(n_steps: int, warmup_share: float) -> Callable[[int], float]:
    """Return the factor of the rate by step: up in a line, down by half a cosine, 0 at the end."""
    n_warmup = round(warmup_share * n_steps)

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / (n_warmup + 1)
        return 0.5 + 0.5 * math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup))

    return factor
