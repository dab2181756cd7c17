"""How many designs of a length fit into a device's memory at once."""

from collections.abc import Callable, Sequence
from math import log

import torch

from app.config.keys import one_line
from app.devices import memory_left
from app.estimate.largest import largest
from app.estimate.needs import Needs
from app.model.codesign import CodesignModel, ModelSettings
from app.ops.settings import KernelSettings
from app.sampling.batch_size import DEFAULT, Room, Sizes, by_pairs

SHARE = 0.8
"""Of the memory that is left, what batches may take: the rest is for what the estimate does not see."""


def room(
    model: ModelSettings,
    device: torch.device,
    dtype: torch.dtype,
    kernels: KernelSettings,
    processes: int,
    tell: Callable[[str], None],
) -> Room:
    """dtype: what the network computes in. processes: that share the device's memory. tell: is told where no estimate
    is to be had, and batches are made by a rule of thumb."""

    def of(lengths: Sequence[int], most: int) -> Sizes:
        try:
            needs = Needs(
                lambda: CodesignModel(model),
                _no_loss,
                device.type,
                kernels,
                half=dtype != torch.float32,
                accumulates=False,
            )
            return _sizes(needs, lengths, most, SHARE * memory_left(device) / processes)
        except Exception as error:
            why = f"{type(error).__name__}: {one_line(error)[:200]}"
            tell(f"no estimate of the memory that designs take ({why}): batches of B * N^2 <= {DEFAULT}")
            return by_pairs(DEFAULT)

    return of


def _sizes(needs: Needs, lengths: Sequence[int], most: int, left: float) -> Sizes:
    """left: bytes that are free for the language model, if there is one, and for designs."""
    short, long = lengths[0], lengths[-1]
    of_short, of_long = (max(1, _fitting(needs, length, most, left)) for length in (short, long))
    power = log(of_short / of_long) / log(long / short) if long > short else 0.0
    # What a design takes is a sum of powers of its length, between two lengths less than the one power through both.
    return lambda length: int(of_short * (short / length) ** power)


def _fitting(needs: Needs, length: int, most: int, left: float) -> int:
    """The largest batch, up to `most`, that fits."""

    def need(size: int) -> int:
        return needs.sampling(size, length).peak - needs.weights  # which are there already

    known = {most: need(most)}
    return most if known[most] <= left else largest(need, left, needs.language, known, power=1)


def _no_loss(*_) -> torch.Tensor:
    raise AssertionError("nothing is trained")
