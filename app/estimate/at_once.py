"""How many designs of a length fit into a device's memory at once."""

from collections.abc import Callable, Sequence
from math import log

import torch

from app.config.keys import one_line
from app.devices import memory_left
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

    def of(lengths: Sequence[int]) -> Sizes:
        try:
            needs = Needs(
                lambda: CodesignModel(model),
                _no_loss,
                device.type,
                kernels,
                half=dtype != torch.float32,
                accumulates=False,
            )
            return _sizes(needs, lengths, SHARE * memory_left(device) / processes)
        except Exception as error:
            why = f"{type(error).__name__}: {one_line(error)[:200]}"
            tell(f"no estimate of the memory that designs take ({why}): batches of B * N^2 <= {DEFAULT}")
            return by_pairs(DEFAULT)

    return of


def _sizes(needs: Needs, lengths: Sequence[int], left: float) -> Sizes:
    """left: bytes that are free for the language model, if there is one, and for designs."""
    there = needs.weights + needs.language
    short, long = lengths[0], lengths[-1]
    least, most = (max(1, needs.sampling(1, length).peak - there) for length in (short, long))
    power = log(most / least) / log(long / short) if long > short else 2.0

    def fit(length: int) -> int:
        # Between two lengths, a sum of powers is less than the one power through both.
        return int((left - needs.language) / (least * (length / short) ** power))

    return fit


def _no_loss(*_) -> torch.Tensor:
    raise AssertionError("nothing is trained")
