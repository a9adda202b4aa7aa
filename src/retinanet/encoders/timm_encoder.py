"""Any network of timm (https://github.com/huggingface/pytorch-image-models) as an encoder.

Networks with feature maps of stride 4, 8, 16 and 32 are used as they are; plain ones, which keep
stride 16 throughout, get the simple feature pyramid. Those with patches of 14 pixels are
built with patches of 16, to which timm resamples the weights.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.func import functional_call

from src.retinanet.encoders import TIMM_PREFIX, eva_x  # noqa: F401 - registers its models
from src.retinanet.encoders.encoder import Encoder, ParameterRule
from src.retinanet.encoders.package_weights import PACKAGES
from src.retinanet.encoders.simple_pyramid import SimplePyramid
from src.retinanet.encoders.weight_sources import HubFile, WebFile, WeightSource
from src.retinanet.settings import Normalisation
from src.system.errors import InputError

STRIDES = (4, 8, 16, 32)
PROBE_SIZE = 96  # pixels; an odd multiple of 32 shows strides that are not exact
PATCH_OF_14 = "_patch14"  # in timm's name of a plain transformer
EXAMPLES = ("convnext_tiny", "swinv2_tiny_window8_256", "seresnext50_32x4d", "efficientnet_b3")

# What timm and its networks raise when they cannot do as they are asked.
REFUSALS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def build(name: str, img_size: int | None) -> Encoder:
    return TimmEncoder(name.removeprefix(TIMM_PREFIX), img_size=img_size)


def weight_sources(name: str) -> tuple[WeightSource, ...]:
    """Return the places that timm knows of, and Python packages; none where it has no weights."""
    model = name.removeprefix(TIMM_PREFIX)
    settings = model_settings(model)
    sources: list[WeightSource] = []
    if settings is not None and settings.hf_hub_id:
        sources.append(HubFile(settings.hf_hub_id, settings.hf_hub_filename or "model.safetensors"))
    if settings is not None and settings.url:
        sources.append(WebFile(settings.url))
    package = PACKAGES.get(model.partition(".")[0])
    if package is not None:
        sources.insert(0 if package.find() else len(sources), package)
    return tuple(sources)


def normalisation(name: str) -> Normalisation:
    """Return what timm's settings of the weights say.

    Raises:
        InputError: timm gives the network without settings.
    """
    settings = model_settings(name.removeprefix(TIMM_PREFIX))
    if settings is None:
        raise InputError(
            f"timm knows no normalisation of {name}; an experiment can state mean and deviation"
        )
    return Normalisation(mean=tuple(settings.mean), deviation=tuple(settings.std))


class TimmEncoder(Encoder):
    """A network of timm with its feature maps sorted out; random weights.

    Attributes:
        model: timm's name of it.
        img_size: the only side of input that it takes, in pixels; None takes all multiples of 32.
    """

    net: Any  # one of timm's wrappers around the network

    def __init__(self, model: str, *, img_size: int | None = None) -> None:
        """Build `model`.

        Args:
            model: timm's name, a tag of pretrained weights after a dot included or not.
            img_size: side of the input in pixels. A network that is built for one size (Swin,
                MaxViT, ViT) is built for it, by default for timm's; the others are tried with it.

        Raises:
            InputError: timm has no such network, or it cannot give the four maps.
        """
        super().__init__()
        self.model = model
        self.img_size = _fixed_size(model, img_size)
        self.patch_options = {"patch_size": 16} if PATCH_OF_14 in model else {}
        self.net = self._create(out_indices=None)
        reductions = [level["reduction"] for level in self.net.feature_info.info]
        self.pyramid: SimplePyramid | None = None
        if set(reductions) == {16}:
            self.pyramid = SimplePyramid(self.net.feature_info.info[-1]["num_chs"])
        else:
            self._choose_levels(reductions)
        # Swin and its kin give (B, H, W, C).
        self.channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        self.out_channels = self._probe(self.img_size or img_size or PROBE_SIZE)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute C2 to C5; shapes as in `Encoder`."""
        maps = self.net(images)
        if self.channels_last:
            maps = [level.permute(0, 3, 1, 2).contiguous() for level in maps]  # -> (B, C, H, W)
        if self.pyramid is not None:
            c2, c3, c4, c5 = self.pyramid(maps[-1])
        else:
            c2, c3, c4, c5 = (maps[i] for i in self.positions)
        return c2, c3, c4, c5

    def use_one_channel(self) -> None:
        """Build the network anew: timm knows which layers take its images."""
        self.in_channels = 1
        self.net = self._create(out_indices=tuple(self.net.feature_info.out_indices))

    def load_pretrained(self, state: dict[str, Tensor], *, has_classifier: bool = True) -> None:
        """Copy timm's weights of the whole network, classifier included, into this encoder.

        timm fits tables that depend on the input's size, and insists that every key has its place
        in the whole network; from there the weights go over to the part that is left here.

        Args:
            state: the weights under timm's names.
            has_classifier: whether that of timm's network is among them.

        Raises:
            ValueError: `state` is not of this network.
        """
        settings: dict[str, Any] = {"state_dict": state, "custom_load": False}
        options: dict[str, Any] = {}
        if not has_classifier:  # equal numbers of classes, so that timm insists on every key
            settings["num_classes"] = options["num_classes"] = 0
        try:
            whole = self.whole_network(pretrained=True, pretrained_cfg_overlay=settings, **options)
            weights = {_joined(key): tensor for key, tensor in whole.state_dict().items()}
            own = self.net.state_dict()
            missing = [key for key in own if _joined(key) not in weights]
            if missing:
                raise ValueError(f"no weights for {', '.join(missing)}")
            self.net.load_state_dict({key: weights[_joined(key)] for key in own})
        except (*REFUSALS, OSError) as error:  # a few hybrids download a part
            raise ValueError(" ".join(str(error).split())) from error

    def parameter_rules(self, layer_decay: float) -> dict[str, ParameterRule]:
        """Return timm's own rules: it knows the layers, and tables that do not decay."""
        with torch.device("meta"):
            whole = self.whole_network()
        groups = param_groups_layer_decay(
            whole,
            weight_decay=1.0,
            no_weight_decay_list=getattr(whole, "no_weight_decay", set)(),
            layer_decay=layer_decay,
        )
        rules = {
            parameter: ParameterRule(group["lr_scale"], decays=group["weight_decay"] > 0)
            for group in groups
            for parameter in group["params"]
        }
        by_name = {_joined(name): rules[value] for name, value in whole.named_parameters()}
        return {f"net.{name}": by_name[_joined(name)] for name, _ in self.net.named_parameters()}

    def whole_network(self, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's
        """Build timm's own network, classifier included, for the same input."""
        return timm.create_model(
            self.model,
            img_size=self.img_size,
            in_chans=self.in_channels,
            **self.patch_options,
            **options,
        )

    def _create(self, out_indices: tuple[int, ...] | None) -> nn.Module:
        try:
            return self.whole_network(features_only=True, out_indices=out_indices)
        except REFUSALS as error:
            reason = f"timm cannot give its feature maps ({_told(error)})"
            raise _unusable(self.model, reason) from error

    def _choose_levels(self, reductions: list[int]) -> None:
        """Find the deepest map of each stride among those that the network gives."""
        lacking = [str(stride) for stride in STRIDES if stride not in reductions]
        if lacking:
            found = ", ".join(map(str, sorted(set(reductions))))
            reason = f"it has maps of stride {found} and none of {', '.join(lacking)}"
            raise _unusable(self.model, reason)
        indices = tuple(
            max(i for i, reduction in enumerate(reductions) if reduction == stride)
            for stride in STRIDES
        )
        built = tuple(self.net.feature_info.out_indices)
        if not set(indices) <= set(built):  # timm gives the first five unless told
            self.net = self._create(out_indices=indices)
            built = indices
        self.positions = tuple(built.index(i) for i in indices)

    def _probe(self, side: int) -> tuple[int, int, int, int]:
        """Send an image without data through the network and return the maps' channels."""
        if side % STRIDES[-1]:
            raise _unusable(self.model, f"its input of {side} pixels is not a multiple of 32")
        # Once for each module: PyTorch does not put back what it finds under two paths (CoaT).
        bare = {
            name: tensor.to("meta")
            for path, module in self.named_modules()
            for name, tensor in chain(
                module.named_parameters(prefix=path, recurse=False),
                module.named_buffers(prefix=path, recurse=False),
            )
        }
        self.eval()
        try:
            image = torch.zeros(1, 3, side, side, device="meta")
            with torch.no_grad():
                maps = functional_call(self, bare, (image,), tie_weights=False)
        except REFUSALS as error:
            reason = f"it does not take an input of {side} x {side} pixels ({_told(error)})"
            raise _unusable(self.model, reason) from error
        self.train()
        for level, stride in zip(maps, STRIDES, strict=True):
            if tuple(level.shape[2:]) != (side // stride, side // stride):
                size = " x ".join(map(str, level.shape[2:]))
                reason = f"of {side} pixels it makes a map of {size}, not of stride {stride}"
                raise _unusable(self.model, reason)
        c2, c3, c4, c5 = (level.shape[1] for level in maps)
        return c2, c3, c4, c5


def model_settings(model: str) -> timm.models.PretrainedCfg | None:
    """Return what timm knows of a network's weights and input, or None.

    Args:
        model: timm's name, with or without a tag.

    Raises:
        InputError: timm has no such network, or not with that tag.
    """
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=5) or EXAMPLES
        raise InputError(
            f"timm {timm.__version__} has no model {architecture!r}; near it: {_listed(near)}"
        )
    variants = timm.list_pretrained(f"{architecture}.*")
    if tag and model not in variants:
        raise InputError(f"timm has no weights {model!r}; it has {_listed(variants) or 'none'}")
    return timm.models.get_pretrained_cfg(model)


def _fixed_size(model: str, img_size: int | None) -> int | None:
    """Return the side that `model` must be built for, None if it takes any."""
    settings = model_settings(model)
    if settings is None or not settings.fixed_input_size:
        return None
    return img_size or settings.input_size[-1]


def _unusable(model: str, reason: str) -> InputError:
    """Say why a network cannot be an encoder and which ones can."""
    sound = list(EXAMPLES)
    if "patch" in model:  # plain transformers work if their patches are of 16 pixels
        sound = get_close_matches(model.split(".")[0], timm.list_models("*patch16*")) + sound
    return InputError(f"timm/{model} cannot be an encoder: {reason}; these can: {_listed(sound)}")


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _listed(models: Sequence[str]) -> str:
    return ", ".join(f"timm/{model}" for model in models)


def _joined(key: str) -> str:
    """Return a parameter's name as all of timm's feature wrappers would have it.

    Some put the network under `model.` or `body.`, some turn `stages.0.` into `stages_0.`.
    """
    return key.replace(".", "_").removeprefix("model_").removeprefix("body_")
