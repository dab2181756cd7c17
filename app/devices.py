"""Which device to run on, and full precision on any of them: the one place that spells the devices' names."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

from app.errors import UserError

DeviceName = Literal["auto", "cpu", "mps", "cuda"]


def choose(name: str = "auto", key: str = "device") -> torch.device:
    """The device of that name; "auto" takes a CUDA GPU, else a Mac's GPU (mps), else the CPU. "gpu" means "cuda".

    key: the setting that gave the name. Raises UserError for an unknown name and for a device that is not available.
    """
    given, name = name, "cuda" if name == "gpu" else name
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in available.items() if there))
    if name not in available:
        raise UserError(f"{key}={given} is unknown: use one of {', '.join(get_args(DeviceName))}")
    if not available[name]:
        usable = ", ".join(device for device, there in available.items() if there)
        raise UserError(f"{key}={given} is not available here: use {key}=auto, or one of {usable}")
    return torch.device(name)


def full_precision(device: torch.device | str) -> AbstractContextManager:
    """Autocast switched off on the device at hand, whatever its type: geometry inside stays in the dtype of its inputs.

    Inputs already cast down (bf16) have to be cast up by the caller. A device without autocast (meta) needs nothing.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
