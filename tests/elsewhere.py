"""A pretended device: finds tensors that were left on the host, and counts the waits for it.

Tensors on "meta" hold their values on the CPU here, so that everything runs as it would on a GPU;
an operation that mixes them with tensors of the host fails, as it would there.
"""

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
WAITS = {
    aten._local_scalar_dense.default: "a number to the host",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten.bincount.default: "bincount",
    aten._unique2.default: "unique",
}


class Elsewhere(Tensor):
    """A tensor that says it is on the device; `values_here` are its numbers."""

    values_here: Tensor

    @staticmethod
    def __new__(cls, inner):
        result = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=DEVICE,
            storage_offset=inner.storage_offset(),
        )  # fmt: skip
        result.values_here = inner
        return result

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        raise AssertionError(f"{func} outside of PretendedDevice")

    def tolist(self):
        return self.cpu().tolist()  # PyTorch's own takes no subclass


class PretendedDevice(TorchDispatchMode):
    """While it is on, "meta" is a device that computes.

    Attributes:
        waits: how often the host waited for the device, by what it waited for; copies of the
            host's tensors to the device count too where they are not asked to be asynchronous.
    """

    def __init__(self):
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func._can_decompose():  # in inference mode composite operations come here whole
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        is_there = [isinstance(x, Elsewhere) for x in tensors]
        to_device = kwargs.get("device")
        stays_there = any(is_there) if to_device is None else to_device == DEVICE
        if func in COPIES:
            self._note_copy(tensors, is_there, stays_there, args, kwargs)
        elif any(is_there):
            left = [x.shape for x, there in zip(tensors, is_there, strict=True)
                    if not there and x.dim()]  # fmt: skip
            assert not left, f"{func} mixes the device with the host's {left}"
            self._note_wait(func, args)
        if to_device is not None:
            kwargs["device"] = torch.device("cpu")
        result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if func._schema.is_mutable and args and isinstance(args[0], Tensor):
            return args[0]
        return tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) else x, result) if (
            stays_there) else result  # fmt: skip

    def _note_copy(self, tensors, is_there, stays_there, args, kwargs):
        if is_there[-1] and not stays_there:
            self.waits["a copy to the host"] += 1
        asynchronous = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
        if stays_there and not all(is_there) and not asynchronous:
            self.waits["a copy to the device"] += 1

    def _note_wait(self, func, args):
        if func in WAITS:
            self.waits[WAITS[func]] += 1
        if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            self.waits["a mask"] += any(
                x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
            )


def _inner(value):
    return value.values_here if isinstance(value, Elsewhere) else value
