"""A backend of an operation, what it can serve, and the calls that it is asked to serve."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import torch

from app.errors import UserError

HALF = (torch.bfloat16, torch.float16)
FLOATS = (torch.float32, *HALF)


@dataclass(frozen=True)
class Call:
    """All that the choice of a backend may depend on."""

    device: str  # its type
    dtype: torch.dtype  # that of the large tensors
    length: int  # residues
    widths: tuple[int, ...]  # of what is in it, in the order of the operation's `example`, which can make one like it
    backward: bool  # gradients will be asked for
    dropout: bool = False
    batch: int = 1  # examples, of operations with limits to all of them together

    def __str__(self) -> str:
        return f"{self.device}, {str(self.dtype).removeprefix('torch.')}, {self.length} residues"


def no_limit(call: Call) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """One way to compute an operation: a function of the operation's name and signature in `module`.

    The module, and with it whatever packages it needs, is imported when the backend is first chosen.
    """

    name: str
    module: str  # its file in the operation's folder
    devices: tuple[str, ...] | None = None  # None: all
    dtypes: tuple[torch.dtype, ...] | None = None  # None: all
    shortest: int = 1  # residues
    longest: int | None = None
    backward: bool = True
    dropout: bool = True
    limit: Callable[[Call], str | None] = no_limit  # any other reason not to serve a call, in words
    packages: tuple[str, ...] = ()  # distributions that it needs
    modules: tuple[str, ...] = ()  # what they are imported as
    install: str = ""  # what brings them

    @property
    def optional(self) -> bool:
        """Whether it rests on packages that may be missing or broken, so that it is tried before it is trusted."""
        return bool(self.packages)

    def absent(self) -> str | None:
        """Why it cannot be imported here, in words, or None. Imports nothing."""
        lacking = [
            package
            for package, module in zip(self.packages, self.modules, strict=True)
            if importlib.util.find_spec(module) is None
        ]
        return f"{' and '.join(lacking)} not installed ({self.install})" if lacking else None

    def is_for(self, device: str) -> bool:
        return self.devices is None or device in self.devices

    def refuses(self, call: Call) -> str | None:
        """Why it cannot serve a call, in words, or None. Imports nothing."""
        if not self.is_for(call.device):
            return f"runs on {' and '.join(self.devices)}, not on {call.device}"
        if self.dtypes is not None and call.dtype not in self.dtypes:
            return f"has no {str(call.dtype).removeprefix('torch.')}"
        if call.length < self.shortest or (self.longest is not None and call.length > self.longest):
            return f"takes {self.shortest} {f'to {self.longest} residues' if self.longest else 'residues or more'}"
        if call.backward and not self.backward:
            return "has no backward pass"
        if call.dropout and not self.dropout:
            return "has no dropout"
        return self.limit(call)

    def version(self) -> str | None:
        """Versions of its packages, None where there are none or they are not installed."""
        try:
            found = dict.fromkeys(metadata.version(package) for package in self.packages)  # parts of one come alike
            return ", ".join(found) or None
        except metadata.PackageNotFoundError:
            return None

    def load(self, operation: str) -> Callable:
        """Its function. Raises UserError where it cannot be imported."""
        if reason := self.absent():
            raise UserError(f"kernels.{operation}={self.name}: {reason}: install it, or set kernels.{operation}=auto")
        try:
            return getattr(importlib.import_module(f"app.ops.{operation}.{self.module}"), operation)
        except Exception as error:  # packages of compiled kernels fail in many ways
            if not self.optional:
                raise
            raise UserError(
                f"kernels.{operation}={self.name}: cannot be imported ({type(error).__name__}: {str(error)[:120]}):"
                f" mend the package, or set kernels.{operation}=auto"
            ) from error
