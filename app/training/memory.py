"""Work that may run out of memory."""

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


class Alone:
    """How a rank attempts the passes of a batch where no other rank waits for it meanwhile."""

    def anyones(self, flag: bool) -> bool:
        """Whether it is so on any rank that goes through its passes with this one."""
        return flag

    def attempt(self, work: Callable[[], T], device: torch.device, failed: Callable[[], None]) -> T | None:
        """What `work` gives, or None where memory did not suffice on any of these ranks. failed: is called where it was
        on this one."""
        if (made := unless_out_of_memory(work, device)) is None:
            failed()
        return made
