"""What is measured: a computation at one size, that several backends can do."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from app.ops.select import operations
from app.ops.settings import OPERATIONS, KernelSettings

Outputs = dict[str, Tensor]

REFERENCE, AUTO = "reference", "auto"
"""Besides these every backend of an operation has its own name."""

_CHOICES = {name: get_args(field.annotation) for name, field in KernelSettings.model_fields.items()}

OF_MODELS = tuple(dict.fromkeys(name for choices in _CHOICES.values() for name in choices))
"""Backends that a whole model can be asked to run on: see `kernels`."""

LEGACY = "multiflow_legacy"


@dataclass(frozen=True)
class Point:
    """One size of one computation. Its backends are measured side by side."""

    case: str  # "NAME", or "NAME:RECIPE" for a model of another recipe than Multiflow's
    device: str  # its type
    dtype: str  # "float32", "bfloat16", "float16"
    length: int  # residues
    batch: int | None  # None: as many as memory allows

    @property
    def name(self) -> str:
        return self.case.partition(":")[0]

    @property
    def recipe(self) -> str:
        return self.case.partition(":")[2] or LEGACY

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def size(self) -> int:
        return self.batch or 1

    def __str__(self) -> str:
        return f"{self.case} {self.length} {self.dtype}"


def no_refusal(backend: str) -> str | None:
    return None


def own_seconds(backend: str, seconds: float) -> float:
    return seconds


@dataclass
class Job:
    """A case made ready at a point. All functions take the name of a backend first.

    run: what is timed, once. outputs: what is compared, in the second argument's dtype; computed as in `run`, unless
    `apart`. error: how far outputs are from the judge's, by the measure that the case defines. refuses: why a backend
    cannot serve, in words, or None. batch: examples in a run. seconds: what the table tells, of the seconds of a run.
    settles: runs that come before one that is like all others, or whose launches those replay. queued: a GPU's time is
    wanted, however slow the host is to launch.
    """

    run: Callable[[str], object]
    outputs: Callable[[str, torch.dtype], Outputs]
    error: Callable[[Outputs, Outputs], float]
    refuses: Callable[[str], str | None] = no_refusal
    batch: Callable[[str], int] = lambda backend: 1
    seconds: Callable[[str, float], float] = own_seconds
    apart: bool = False
    settles: int = 0
    queued: bool = False


@dataclass(frozen=True)
class Sizes:
    """Where a case is measured if nobody says otherwise, on one type of device."""

    lengths: Sequence[int]
    dtypes: Sequence[str] = ("float32",)
    batch: int | None = 1


@dataclass(frozen=True)
class Case:
    """A kind of computation. job: what it is at a point, on its device. backends: those measured on a type of device,
    of which the ones not installed are left out; on_request: others that may be named. sizes: by device type."""

    name: str
    job: Callable[[Point], Job]
    backends: Callable[[str], list[str]]
    sizes: dict[str, Sizes]
    on_request: Sequence[str] = ()


def kernels(backend: str) -> KernelSettings:
    """Settings by which a whole model runs on a backend: each operation's of that name, `auto` where there is none with
    which a model can be trained."""
    named = {name: operations()[name].backends.get(backend) for name in OPERATIONS if backend in _CHOICES[name]}
    return KernelSettings(**{name: backend for name, one in named.items() if one and one.backward})


def under(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Autocast to the dtype, as training and sampling in half precision use it; float32 is float32 throughout."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def largest_difference(found: Outputs, expected: Outputs) -> float:
    """The largest difference anywhere, in the unit of the outputs. What is not finite is infinitely far."""
    return max(_differences(found, expected).values())


def largest_share(found: Outputs, expected: Outputs) -> float:
    """The largest difference anywhere as a share of the largest entry expected anywhere."""
    return largest_difference(found, expected) / max(_sizes(expected).values())


def largest_share_of_each(found: Outputs, expected: Outputs) -> float:
    """The largest difference as a share of the largest entry expected of the same tensor.

    A gradient that is 0 but for rounding has no size of its own: none counts as less than a thousandth of the largest.
    """
    sizes = _sizes(expected)
    least = 1e-3 * max(sizes.values())
    return max(off / max(sizes[name], least) for name, off in _differences(found, expected).items())


def _differences(found: Outputs, expected: Outputs) -> dict[str, float]:
    def off(one: Tensor, other: Tensor) -> float:
        difference = (one.double().cpu() - other.double().cpu()).abs()
        return difference.nan_to_num(nan=torch.inf, posinf=torch.inf).max().item()

    return {name: off(found[name], expected[name]) for name in expected}


def _sizes(expected: Outputs) -> dict[str, float]:
    return {name: value.abs().max().item() for name, value in expected.items()}
