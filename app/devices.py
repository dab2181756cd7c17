"""Which device to run on, and full precision on any of them: the one place that spells the devices' names."""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from app.errors import UserError

CPU, MPS, NVIDIA = "cpu", "mps", "cuda"  # types of torch's devices
_WITH_AUTOCAST = (CPU, MPS, NVIDIA)  # torch has a function that tells, which its compiler cannot look into before 2.12

DEVICE_TYPES = {"cpu": CPU, "mps": MPS, "cuda": NVIDIA, "gpu": NVIDIA}
"""By the names that settings give them, whether they are there or not."""

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


def how_many(device: str) -> int:
    """Devices of that type here; of a CPU, one."""
    return torch.cuda.device_count() if device == NVIDIA else int(device == CPU or torch.backends.mps.is_available())


def memory_of(device: str) -> int | None:
    """Bytes of memory of a device of that type, or None where there is none here; of a CPU all that the system has, or
    lets a container have; of a Mac's GPU what the system recommends at most."""
    if device == NVIDIA:
        return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    if device == MPS:
        return torch.mps.recommended_max_memory() if torch.backends.mps.is_available() else None
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(there, int(_CONTAINER.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return there


def memory_left(device: torch.device) -> int:
    """Bytes of a device's memory that this process could still have: what is free, and what torch keeps in store."""
    if device.type == NVIDIA:
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == MPS:
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    there = memory_of(CPU)
    try:  # of a container; files that are cached and not in use make way
        cached = _value(_CONTAINER.with_name("memory.stat"), "inactive_file ")
        there -= int(_CONTAINER.with_name("memory.current").read_text()) - cached
    except (OSError, ValueError):
        pass
    try:
        return min(there, 1024 * _value(_SYSTEM, "MemAvailable:"))
    except (OSError, ValueError):  # not Linux; nothing tells
        return there // 2


def _value(file: Path, name: str) -> int:
    (value,) = [line.split()[1] for line in file.read_text().splitlines() if line.startswith(name)]
    return int(value)


_CONTAINER = Path("/sys/fs/cgroup/memory.max")
_SYSTEM = Path("/proc/meminfo")

_standing_in: str | None = None


def kind(device: torch.device) -> str:
    """The device's type, by which operations choose how to compute; what it stands in for, within `as_if`."""
    return device.type if _standing_in is None else _standing_in


@contextmanager
def as_if(device: str | None) -> Iterator[None]:
    """Operations choose as if tensors were on a device of that type: for estimates, which compute nothing. None: as on
    the device where they are."""
    global _standing_in
    before, _standing_in = _standing_in, device
    try:
        yield
    finally:
        _standing_in = before


def _autocast_of(device: torch.device | str) -> str | None:
    """The name of the autocast that holds for a device, None for one without (meta); within `as_if` the CPU's."""
    name = torch.device(device).type if _standing_in is None else CPU
    return name if name in _WITH_AUTOCAST else None


def full_precision(device: torch.device | str) -> AbstractContextManager:
    """Autocast switched off on the device at hand, whatever its type: geometry inside stays in the dtype of its inputs.

    Inputs already cast down (bf16) have to be cast up by the caller. A device without autocast (meta) needs nothing.
    """
    name = _autocast_of(device)
    return torch.autocast(name, enabled=False) if name else nullcontext()


def under_autocast(device: torch.device) -> bool:
    """Whether autocast is on there, so that operations bring their inputs to one type by themselves."""
    name = _autocast_of(device)
    return name is not None and torch.is_autocast_enabled(name)


def autocast_dtype(device: torch.device) -> torch.dtype:
    """The type that autocast, where it is on, brings inputs to."""
    return torch.get_autocast_dtype(_autocast_of(device))


def compute_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The type in which a layer that takes the tensor computes: autocast's where autocast is on, else the tensor's."""
    if under_autocast(tensor.device) and tensor.dtype != torch.float64:  # which autocast leaves alone
        return autocast_dtype(tensor.device)
    return tensor.dtype


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type in which matrices of that type are best multiplied: float32 on a CPU that is slower in less.

    Without tiles for bfloat16 (AMX), vectors for it (avx512_bf16) are up to twice as slow as float32's.
    """
    if kind(device) != CPU or (dtype == torch.bfloat16 and _HAS_TILES) or dtype not in (torch.bfloat16, torch.float16):
        return dtype
    return torch.float32


_HAS_TILES = torch.cpu._is_amx_tile_supported()


def choose_dtype(precision: Precision, device: torch.device, key: str = "precision") -> torch.dtype:
    """The type of numbers for a network in inference; "auto": bfloat16 on a CUDA GPU that has it, else float32.

    key: the setting that gave the precision. Raises UserError for one that the device lacks.
    """
    name = device.type
    on_gpu = name == "cuda"
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else name != "mps"
    if precision == "auto":
        return torch.bfloat16 if on_gpu and has_bfloat16 else torch.float32
    if (precision == "bfloat16" and not has_bfloat16) or (precision == "float16" and name == "cpu"):
        others = ["auto", "float32", *["bfloat16"] * (has_bfloat16 and precision != "bfloat16")]
        cure = " or ".join(f"{key}={one}" for one in others)
        raise UserError(f"{key}={precision}: the {name} device has none here: use {cure}")
    return getattr(torch, precision)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: torch has an error for it; its libraries, Triton and drivers say so in words."""
    words = ("out of memory", "can't allocate memory", "invalid buffer size", "alloc_failed")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(one in str(error).lower() for one in words)


def free_memory(device: torch.device) -> None:
    """Give back what nothing uses: objects that refer to each other, and what the device's allocator keeps in store."""
    gc.collect()
    if device.type == NVIDIA:
        torch.cuda.empty_cache()
    elif device.type == MPS:
        torch.mps.empty_cache()


def current(device: torch.device) -> AbstractContextManager:
    """The GPU at hand made the current one, on which Triton launches its kernels, wherever the tensors are.

    For other devices it does nothing, nor where it is compiled: what a compiler writes makes its GPU current by itself.
    """
    if device.type != "cuda" or torch.compiler.is_compiling():
        return nullcontext()
    return torch.cuda.device(device)


def has_cuda_graphs(device: torch.device) -> bool:
    """Whether work there can be captured in a CUDA graph and replayed."""
    return device.type == "cuda"


def is_capturing() -> bool:
    """Whether a CUDA graph is recording what this thread launches."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile writes kernels for it that are worth having; its support of a Mac's GPU is a prototype."""
    return device.type in ("cpu", "cuda")


def host_buffer(shape: Sequence[int], like: Tensor) -> Tensor:
    """Memory on the CPU, not yet filled, that a tensor of `like`'s type and device is copied into without waiting."""
    return torch.empty(shape, dtype=like.dtype, pin_memory=like.device.type == "cuda")


def fetch(tensor: Tensor, into: Tensor) -> None:
    """Copy a tensor into a `host_buffer`. On an NVIDIA GPU the host does not wait: see `wait_for`."""
    into.copy_(tensor, non_blocking=tensor.device.type == "cuda")


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU's on the device; the host does not wait until it is there, work on the device does."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def wait_for(device: torch.device) -> None:
    """Return when all that was asked of the device is done; a device that is never waited for needs nothing."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def runs_flash_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the package flash-attn, where it is installed, runs there: half precision on Ampere GPUs and later."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def has_hopper() -> bool:
    """Whether there is an NVIDIA GPU of the Hopper generation or later, which multiplies out of shared memory."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators seeded inside, and as they were afterwards; a Mac's GPU gives no way to put its own back."""
    gpus = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        torch.manual_seed(seed)
        yield


def peak_memory(device: torch.device) -> int:
    """The most bytes in use: on an NVIDIA GPU by tensors since `restart_peak_memory`, on the CPU by this process since
    it began; on a Mac's GPU, which keeps no such mark, what the process holds of it now."""
    if device.type == NVIDIA:
        return torch.cuda.max_memory_allocated(device)
    if device.type == MPS:
        return torch.mps.driver_allocated_memory()
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def restart_peak_memory(device: torch.device) -> None:
    """See `peak_memory`."""
    if device.type == NVIDIA:
        torch.cuda.reset_peak_memory_stats(device)
