"""Which parameters learn at which rate, and which of them decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from src.experiments.experiment import Experiment
from src.retinanet.encoders.encoder import Encoder, ParameterRule
from src.retinanet.model import RetinaNet

SGD_RATE_FACTORS = {"encoder": 0.2, "box_head": 2.0}  # of the learning rate; others 1


def group_by_part(model: RetinaNet, experiment: Experiment) -> list[dict[str, Any]]:
    """Give each part of the network the second place's rate."""
    return [
        {
            "params": list(part.parameters()),
            "lr": experiment.learning_rate * SGD_RATE_FACTORS.get(name, 1),
        }
        for name, part in model.named_children()
    ]


def group_by_rule(model: RetinaNet, experiment: Experiment) -> list[dict[str, Any]]:
    """Let matrices and filters decay, norms and biases not; let early layers learn less.

    Returns:
        The groups, by their rate: that of pyramid and heads, the experiment's own, comes last.
    """
    encoder = model.encoder
    assert isinstance(encoder, Encoder)
    own = encoder.parameter_rules(experiment.layer_decay)
    rules = {f"encoder.{name}": rule for name, rule in own.items()}
    groups: dict[ParameterRule, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        usual = ParameterRule(rate_factor=1.0, decays=parameter.ndim > 1)
        groups.setdefault(rules.get(name, usual), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": experiment.learning_rate * rule.rate_factor,
            "weight_decay": experiment.weight_decay if rule.decays else 0.0,
        }
        for rule, parameters in sorted(groups.items(), key=lambda group: group[0])
    ]
