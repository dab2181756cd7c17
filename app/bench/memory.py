"""The most memory that a call has in use, above what was in use before it."""

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from app.devices import NVIDIA

_MMAP_THRESHOLD = -3  # glibc's name for it in mallopt
_SMALL = 64 * 2**10  # bytes
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The largest number of bytes in use during a call less that before it; results that the call returns count.

    On an NVIDIA GPU what the allocator handed out, exactly. On the CPU the process's resident set, of which Linux keeps
    a high-water mark that can be reset; elsewhere (Mac) it cannot, so that only what goes beyond all earlier peaks is
    seen: there, measure small things before large ones. To be called in a process that does nothing else, after a call
    that loaded whatever is loaded at first use.
    """
    gc.collect()
    if device.type == NVIDIA:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _return_to_system()
    if not _reset():
        before = _largest_ever()
        call()
        return _largest_ever() - before
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def return_what_is_freed() -> None:
    """Have glibc give every large block back to the system when it is freed, and take a new one for the next.

    Otherwise it keeps them in its arenas, and a later call that fills what an earlier one left seems to need nothing.
    Slow, so for processes that measure memory and no time.
    """
    if libc := _glibc():
        libc.mallopt(_MMAP_THRESHOLD, _SMALL)


def _return_to_system() -> None:
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    return libc if hasattr(libc, "malloc_trim") else None


def _reset() -> bool:
    """Bring the high-water mark down to what is resident now; whether that can be done here."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _resident(mark: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(mark))
    return int(line.split()[1]) * 1024


def _largest_ever() -> int:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
