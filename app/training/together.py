"""What all ranks do together in an optimizer step: agree on whether to make it, and average their gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def anyones(flags: Sequence[bool | Tensor], device: torch.device) -> list[bool]:
    """Of each flag, whether it is set on any rank. The host waits for the device once."""
    if not several():
        return [bool(flag) for flag in flags]
    numbers = torch.stack([torch.as_tensor(flag, device=device).float() for flag in flags])
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return [bool(number) for number in numbers.tolist()]


def everyones(own: object) -> list:
    """Every rank's object, in order of rank."""
    if not several():
        return [own]
    found = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def flat(gradients: Sequence[Tensor]) -> Tensor:
    """A copy of them all in a row, which takes as much memory as they do."""
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def average(row: Tensor, gradients: Sequence[Tensor]) -> None:
    """Fill `gradients` with their mean over ranks. row: this rank's, `flat`."""
    distributed.all_reduce(row.div_(distributed.get_world_size()))
    parts = row.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
