"""Work that may run out of memory, and what to do first where it did."""

from collections.abc import Callable
from typing import TypeVar

import torch

from app.devices import free_memory, is_out_of_memory

T = TypeVar("T")


def unless_out_of_memory(work: Callable[[], T], device: torch.device) -> T | None:
    """What `work` gives, or None where memory did not suffice: what it held is free again then."""
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    free_memory(device)  # not earlier: while an error is being handled, its frames hold the memory of what failed
    return None
