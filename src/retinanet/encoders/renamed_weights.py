"""Published files of weights under the names of our encoders: what to take of a file, and how.

Each layout is read from the publishers' own code; keys that are left over or missing are an error
where the weights are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from src.retinanet.encoders.named_weights import Layout

State = dict[str, Tensor]

DINOV2_NAMES = (  # of transformers' Dinov2Model, as patterns, and of timm
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
QUERY = re.compile(r"\.attention\.attention\.query\.")


@dataclass(frozen=True)
class FileLayout:
    """How a file holds an encoder's weights.

    Attributes:
        inside: the keys of a file's dictionary under which the weights may lie, tried in turn,
            one within the other.
        rename: names them as the encoder's network does, and leaves out what is not the encoder's.
        has_classifier: whether the classifier of the encoder's network is among them.
    """

    inside: tuple[str, ...] = ("state_dict",)
    rename: Callable[[State], State] = dict
    has_classifier: bool = False


def _without(state: State, prefixes: Iterable[str]) -> State:
    return {key: value for key, value in state.items() if not key.startswith(tuple(prefixes))}


def _from_torchxrayvision(state: State) -> State:
    """Leave out the classifier of 18 findings and its thresholds."""
    return _without(state, ("classifier.", "op_threshs"))


def _from_transformers(state: State) -> State:
    """Join queries, keys and values, which timm holds as one matrix."""
    found = {}
    for key, value in state.items():
        if ".attention.attention." in key:
            if not QUERY.search(key):
                continue
            parts = [state.get(QUERY.sub(f".attention.attention.{part}.", key)) for part in
                     ("query", "key", "value")]  # fmt: skip
            joined = [part for part in parts if part is not None]
            found[QUERY.sub(".attn.qkv.", _renamed(key))] = torch.cat(joined)
        elif key != "embeddings.mask_token":
            found[_renamed(key)] = value
    return found


def _renamed(key: str) -> str:
    for pattern, name in DINOV2_NAMES:
        key = re.sub(pattern, name, key)
    return key


def _from_ark(state: State) -> State:
    """Leave out the projector and the heads of six data sets."""
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    return _without(plain, ("projector.", "omni_heads.", "head."))


LAYOUTS: dict[Layout, FileLayout] = {
    "encoder": FileLayout(has_classifier=True),
    "densenet": FileLayout(rename=_from_torchxrayvision),
    "dinov2": FileLayout(rename=_from_transformers),
    "eva": FileLayout(inside=("model_ema", "model", "module", "state_dict")),
    "ark": FileLayout(inside=("teacher",), rename=_from_ark),
}
