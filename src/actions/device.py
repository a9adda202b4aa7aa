"""Where and how the networks of an action run, by its flags."""

from __future__ import annotations

from src.actions.flags import Flags
from src.retinanet.acceleration import (
    Acceleration,
    choose_device,
    choose_precision,
    set_global_switches,
)


def choose_acceleration(flags: Flags) -> Acceleration:
    """Choose device and arithmetic by the flags; sets PyTorch's switches of the whole process.

    Raises:
        InputError: there is no such device, or it does not have the precision.
    """
    device = choose_device(flags.device)
    set_global_switches(deterministic=flags.deterministic)
    return Acceleration(
        device=device,
        precision=choose_precision(flags.precision, device),
        compiles=flags.compile,
        recomputes_encoder=flags.checkpoint_encoder,
    )
