"""Which device to run on, and full precision on any of them: the one place that spells the devices' names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch

from app.errors import UserError

CPU, MPS, NVIDIA = "cpu", "mps", "cuda"  # types of torch's devices

DeviceName = Literal["auto", "cpu", "mps", "cuda"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


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


def under_autocast(device: torch.device) -> bool:
    """Whether autocast is on there, so that operations bring their inputs to one type by themselves."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def choose_dtype(precision: Precision, device: torch.device, key: str = "precision") -> torch.dtype:
    """The type of numbers for a network in inference; "auto": bfloat16 on a CUDA GPU that has it, else float32.

    key: the setting that gave the precision. Raises UserError for one that the device lacks.
    """
    kind = device.type
    on_gpu = kind == "cuda"
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else kind != "mps"
    if precision == "auto":
        return torch.bfloat16 if on_gpu and has_bfloat16 else torch.float32
    if (precision == "bfloat16" and not has_bfloat16) or (precision == "float16" and kind == "cpu"):
        raise UserError(f"{key}={precision}: the {kind} device has none here: use {key}=auto or {key}=float32")
    return getattr(torch, precision)


def runs_flash_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the package flash-attn, where it is installed, runs there: half precision on Ampere GPUs and later."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators seeded inside, and as they were afterwards; a Mac's GPU gives no way to put its own back."""
    gpus = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        torch.manual_seed(seed)
        yield
