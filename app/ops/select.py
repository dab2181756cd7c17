"""Operations with several backends, and the choice among them.

The settings hold for the process, as kernels belong to a machine and not to a model: a module calls its operation and
knows nothing of backends. They are no thread's own, since the backward pass recomputes in threads of its own.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from app.devices import is_capturing
from app.errors import UserError
from app.ops import outline
from app.ops.backend import Backend, Call
from app.ops.settings import OPERATIONS, KernelSettings

_settings = KernelSettings()
_chosen: dict[tuple, "Choice"] = {}  # of each operation, backend and what was passed over for it, the first call
_faults: dict[tuple, str | None] = {}  # what was found where optional backends were tried


@dataclass(frozen=True)
class Choice:
    """A backend chosen for a call, and those that `auto` would rather have had."""

    operation: str
    backend: str
    call: Call
    passed_over: tuple[tuple[str, str], ...] = ()  # backend, why not

    def __str__(self) -> str:
        reasons = "".join(f"; {name}: {why}" for name, why in self.passed_over)
        return f"{self.operation}: {self.backend} ({self.call}{reasons})"


def use(settings: KernelSettings) -> None:
    """Choose backends by these settings from now on."""
    global _settings
    _settings = settings
    _chosen.clear()


def settings() -> KernelSettings:
    """Those in use."""
    return _settings


@contextmanager
def using(changed: KernelSettings) -> Iterator[None]:
    """`use` for a while."""
    before = _settings
    use(changed)
    try:
        yield
    finally:
        use(before)


def choices() -> list[Choice]:
    """What has been chosen since `use`: the first call of each operation, backend, and what was passed over for it."""
    return list(_chosen.values())


class News:
    """What has been chosen, each backend of each operation and each reason against another told once."""

    def __init__(self):
        self._told: set[tuple] = set()

    def lines(self) -> list[str]:
        """Lines for the log on what is new: which backends serve, and what `auto` passed over and why."""
        made = [c for c in _chosen.values() if self._is_new(c.operation, c.backend)]
        listed = ", ".join(f"{choice.operation}={choice.backend}" for choice in made)
        lines = [f"kernels ({made[0].call}): {listed}"] if made else []
        for choice in list(_chosen.values()):
            for name, why in choice.passed_over:
                if self._is_new(choice.operation, name, why):
                    lines.append(f"  {choice.operation}: not {name}: {why}")
        return lines

    def _is_new(self, *key: str) -> bool:
        new = key not in self._told
        self._told.add(key)
        return new


class Operation:
    """A function with several backends. Called with the operation's arguments, it calls the chosen one with them."""

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend],
        describe: Callable[..., Call],
        order: Callable[[Call], Sequence[str]],
    ):
        """describe: takes the operation's arguments. order: what `auto` tries for a call, best first; what is not on
        it, `auto` never takes. Its last serves every call."""
        self.name, self.describe, self.order = name, describe, order
        self.backends = {backend.name: backend for backend in backends}
        self._functions: dict[str, Callable] = {}

    def __call__(self, *args, **kwargs) -> Any:
        call = self.describe(*args, **kwargs)
        backend = self.choose(call).backend
        if (outlined := outline.current()) is not None and self.backends[backend].optional:
            return outlined.fused(self.function("reference"), args, kwargs)
        return self.function(backend)(*args, **kwargs)

    def function(self, backend: str) -> Callable:
        """A backend's function, imported when first asked for. Raises UserError where that fails."""
        if backend not in self._functions:
            self._functions[backend] = self.backends[backend].load(self.name)
        return self._functions[backend]

    def choose(self, call: Call) -> Choice:
        """Raises UserError where the settings name a backend that cannot serve the call."""
        named = getattr(_settings, self.name)
        if named == "auto":
            choice = self._best(call)
        else:
            self._insist(named, call)
            choice = Choice(self.name, named, call)
        key = self.name, choice.backend, choice.passed_over
        if key not in _chosen:
            _chosen[key] = choice
        return choice

    def _insist(self, named: str, call: Call) -> None:
        """Raises UserError where a backend cannot serve a call, cannot be had, or is at fault."""
        cure = f"set kernels.{self.name}=auto or another backend"
        if reason := self.backends[named].refuses(call):
            raise UserError(f"kernels.{self.name}={named}: {reason}, and is asked for {call}: {cure}")
        if outline.current() is not None:
            return  # it may be meant for another machine
        self.function(named)
        if fault := self._fault_of(named, call):
            raise UserError(f"kernels.{self.name}={named}: {fault}: {cure}")

    def _best(self, call: Call) -> Choice:
        passed_over = []
        for name in self.order(call):
            if not self.backends[name].is_for(call.device):
                continue  # which nobody would expect
            if reason := self.unusable(name, call):
                passed_over.append((name, reason))
            else:
                return Choice(self.name, name, call, tuple(passed_over))
        raise AssertionError(f"no backend of {self.name} serves {call}")

    def unusable(self, name: str, call: Call) -> str | None:
        """Why a backend is of no use for a call on this machine, or None."""
        return self.backends[name].refuses(call) or self._fault_of(name, call)

    def _fault_of(self, name: str, call: Call) -> str | None:
        if not self.backends[name].optional:
            return None
        return self.fault(name, call.device, call.dtype, call.widths, call.backward)

    def fault(self, name: str, device: str, dtype: torch.dtype, widths: tuple[int, ...], backward: bool) -> str | None:
        """What is wrong with an optional backend for calls of these widths; tried when first asked for.

        Nothing is run while a CUDA graph records: what was not tried before is then of no use. A compiler runs this as
        it is, however far it is with the model around it, and builds the answer in: hence plain arguments, no `Call`.
        """
        key = (self.name, name, device, dtype, widths, backward)
        if key not in _faults:
            if is_capturing():
                return "was not tried before a CUDA graph recorded"
            _faults[key] = _try(self, name, Call(device, dtype, 1, widths, backward))
        return _faults[key]

    fault._dynamo_marked_constant = True  # by torch.compiler.assume_constant_result, which would import the compiler

    @cached_property
    def example(self) -> Callable[..., dict[str, Any]]:
        """`example(length, batch=1, seed=0, *widths)`: random named arguments, float64 on the CPU; widths are those of
        a `Call`, by default published ones."""
        return import_module(f"app.ops.{self.name}.example").example

    @cached_property
    def published(self) -> Call:
        """A call of published widths; all but these is to be replaced."""
        return self.describe(**self.example(1))


def _try(operation: Operation, name: str, call: Call) -> str | None:
    """What is wrong with a backend, found by running it on a few residues of such a call; None where it is right."""
    from app.ops.check import fault

    # The call may come from a block whose activations are made again: what the trial keeps is not part of these; or
    # from an estimate, whose tensors are no real ones.
    with torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is), outline.lifted():
        return operation.backends[name].absent() or fault(operation, name, call)


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def operations() -> dict[str, Operation]:
    """All operations with backends, by name."""
    return {name: getattr(import_module(f"app.ops.{name}"), name) for name in OPERATIONS}


def used_by(model: nn.Module) -> frozenset[str]:
    """The operations that a model's modules say they call."""
    return frozenset().union(*(getattr(module, "operations", ()) for module in model.modules()))


def refuse_idle(typed: Iterable[str], group: str | None, wanted: KernelSettings, used: Collection[str]) -> None:
    """Raises UserError for a typed key such as kernels.edge_transition of an operation that the model does not use.

    group: the set of backends that was chosen by name, such as "trifast", which must be of use for one operation.
    """
    if group not in (None, "auto", "reference", "torch"):  # which are for every operation
        own = [name for name in OPERATIONS if getattr(wanted, name) == group]
        if own and not set(own) & set(used):
            raise UserError(f"kernels={group} has no effect: this model has no {' and no '.join(own)}; leave it out")
    for key in typed:
        if key.startswith("kernels.") and key.removeprefix("kernels.") not in used:
            raise UserError(f"{key} has no effect: nothing in this model computes it; leave it out")


def require(
    wanted: KernelSettings, device: torch.device, dtype: torch.dtype, used: Collection[str], backward: bool = False
) -> None:
    """Raises UserError where the settings name a backend, for an operation that is used, which cannot be had there.

    dtype: that of the network's large tensors. backward: gradients will be asked for.
    """
    _require_device(wanted, device.type, used)
    for name in sorted(used):
        if (named := getattr(wanted, name)) != "auto":
            backend = operations()[name].backends[named]
            if backend.dtypes is not None and dtype not in backend.dtypes:
                has = ", ".join(str(one).removeprefix("torch.") for one in backend.dtypes)
                raise UserError(
                    f"kernels.{name}={named}: serves {has}, and the network runs in"
                    f" {str(dtype).removeprefix('torch.')}: set kernels.{name}=auto, or another precision"
                )
            if backward and not backend.backward:
                raise UserError(
                    f"kernels.{name}={named}: has no backward pass, for training: set kernels.{name}=auto or another"
                    " backend"
                )
            operations()[name].function(named)


def _require_device(wanted: KernelSettings, device: str, used: Collection[str]) -> None:
    """All that run elsewhere are told at once: a group such as kernels=triton names several."""
    named = {name: getattr(wanted, name) for name in sorted(used)}
    backends = {name: operations()[name].backends[which] for name, which in named.items() if which != "auto"}
    elsewhere = {name: one for name, one in backends.items() if not one.is_for(device)}
    if elsewhere:
        told = ", ".join(f"kernels.{name}={one.name}" for name, one in elsewhere.items())
        where = " and ".join(dict.fromkeys(there for one in elsewhere.values() for there in one.devices))
        runs, key = ("run", "kernels") if len(elsewhere) > 1 else ("runs", f"kernels.{next(iter(elsewhere))}")
        raise UserError(f"{told}: {runs} on {where}, not on {device}: set {key}=auto or another backend")


def prepare(device: torch.device, dtype: torch.dtype, backward: bool, used: Collection[str]) -> None:
    """Import now what may be chosen there for the operations that are used, since a compiler cannot, and try it.

    It is tried at published widths, which most models have; others are tried by the first call that has them, which
    refuses a backend that is named and at fault.
    """
    for name in sorted(used):
        operation = operations()[name]
        if (named := getattr(_settings, name)) != "auto":
            operation.function(named)
        for length in (2**power for power in range(14)):
            call = replace(operation.published, device=device.type, dtype=dtype, length=length, backward=backward)
            for backend in operation.order(call) if named == "auto" else [named]:
                if operation.backends[backend].optional:
                    operation.unusable(backend, call)
                else:
                    operation.function(backend)


def wants_gradient(*tensors: Any) -> bool:
    """Whether gradients will be asked for with respect to any tensor in the arguments, however nested."""
    return torch.is_grad_enabled() and any(
        isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in tree_leaves(tensors)
    )
