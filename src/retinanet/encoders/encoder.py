"""The contract that every encoder keeps: four feature maps, C2 to C5, at exact strides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

# What may stay unused of a file: the classifier, as torchvision, pretrainedmodels and timm name it.
CLASSIFIERS = ("fc.", "last_linear.", "classifier.", "classif.")
# A counter of BatchNorm that files from before PyTorch 0.4.1 do not have.
OPTIONAL = ".num_batches_tracked"

MAX_NAMED_KEYS = 8  # in an error message


class ParameterRule(NamedTuple):
    """How a parameter is trained.

    Attributes:
        rate_factor: of the learning rate.
        decays: whether it is drawn towards 0.
    """

    rate_factor: float
    decays: bool


class Encoder(nn.Module, ABC):
    """A convolutional body without its classifier.

    Subclasses set `out_channels` and implement `forward`. The input's sides are multiples of 32;
    the maps' sides are exactly a quarter, an eighth, a sixteenth and a thirty-second of them.

    Attributes:
        in_channels: of the images, 3 or 1.
        out_channels: channels of C2, C3, C4 and C5.
    """

    in_channels: int = 3
    out_channels: tuple[int, int, int, int]

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the feature maps.

        Args:
            images: (B, in_channels, H, W), grey in every channel, H and W multiples of 32.

        Returns:
            C2, C3, C4, C5: (B, out_channels[i], H / 2^(i+2), W / 2^(i+2)).
        """

    def use_one_channel(self) -> None:
        """Take grey images as one channel instead of three equal ones.

        The filters of the three are summed, which gives the same maps.
        """
        stem = self.get_submodule(self._stem())
        assert isinstance(stem, nn.Conv2d)
        stem.weight = nn.Parameter(stem.weight.detach().sum(dim=1, keepdim=True))
        self.in_channels = stem.in_channels = 1

    def load_pretrained(self, state: dict[str, Tensor], *, has_classifier: bool = True) -> None:
        """Copy published weights of the whole network, every one of the encoder's or none.

        Args:
            state: the weights under the names of the network that the encoder was made from. An
                encoder of one channel takes those for three as well, and sums them.
            has_classifier: whether the network's classifier is among them; only timm asks.

        Raises:
            ValueError: they are of another network; the message says which keys do not fit.
        """
        own = self.state_dict()
        own_keys = {_source_key(key): key for key in own}
        wanted = {_source_key(key): tensor for key, tensor in own.items()}
        found = {_source_key(key): tensor for key, tensor in state.items()}
        for key, tensor in found.items():
            # Kept from the original: some files hold Xception's 1x1 convolutions as matrices.
            if key.endswith(".pointwise.weight") and tensor.ndim == 2:
                found[key] = tensor[:, :, None, None]
        if self.in_channels == 1:
            stem = _source_key(f"{self._stem()}.weight")
            if stem in found and found[stem].shape[1:2] == (3,):
                found[stem] = found[stem].sum(dim=1, keepdim=True)
        _check_keys(wanted, found)
        self.load_state_dict(
            {own_keys[key]: tensor for key, tensor in found.items() if key in own_keys},
            strict=False,
        )

    def parameter_rules(self, layer_decay: float) -> dict[str, ParameterRule]:
        """Return how parameters are trained for which the usual rule does not hold.

        By the usual rule the learning rate is the experiment's, and what has two dimensions or
        more decays.

        Args:
            layer_decay: factor of the rate from each layer to the one before it; other than 1
                only for networks of timm, which know their layers.
        """
        return {}

    def _stem(self) -> str:
        """Return the name of the first convolution."""
        return next(name for name, part in self.named_modules() if isinstance(part, nn.Conv2d))


def list_keys(keys: list[str]) -> str:
    """Write the first keys for an error message, and how many more there are."""
    more = len(keys) - MAX_NAMED_KEYS
    return ", ".join(keys[:MAX_NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")


def _source_key(key: str) -> str:
    """Return a parameter's name as in the network that an encoder was made from."""
    return key.removeprefix("net.")


def _check_keys(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Raise ValueError unless `found` fills `wanted` and only a classifier is left."""
    missing = [key for key in wanted if key not in found and not key.endswith(OPTIONAL)]
    left_over = [key for key in found if key not in wanted and not key.startswith(CLASSIFIERS)]
    misshapen = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    problems = [
        f"{problem}: {list_keys(keys)}"
        for problem, keys in (
            ("missing", missing),
            ("left over", left_over),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise ValueError("; ".join(problems))
