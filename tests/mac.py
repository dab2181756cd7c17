"""A stand-in for a Mac: a device that refuses what its GPU (MPS) refuses, on any machine.

Inside `StandIn()` the device "mps" exists: tensors moved there are wrappers around tensors on the CPU, and every
operator on them is first held to what MPS can do. A tensor that was taken back with `.cpu()` is free, as on a Mac. To
PyTorch the wrappers are on the device "meta", which, unlike "mps", every build of it can carry through autograd.
"""

import functools
from pathlib import Path

import torch
import torchgen
import yaml
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

REFUSED_DTYPES = (torch.float64, torch.complex128)
_STAND_IN = torch.device("meta")
_PREPARING = {"CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"}
_TAKES_BOTH_DEVICES = {"_to_copy", "copy_", "index.Tensor", "index_put", "index_put_", "_index_put_impl_"}


@functools.cache
def operators_without_mps() -> frozenset[str]:
    """Operators (name.overload) that have no MPS kernel: read off `native_functions.yaml` of the torch installed.

    An operator has one if its entry, or the one whose structured kernel it shares, names MPS, or if it is made of
    others. Of those that are, the ones that only prepare the output of a kernel (linalg_lstsq that of linalg_lstsq.out)
    are judged by that kernel: they call it where no mode sees it.
    """
    file = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    entries = {e["func"].partition("(")[0]: e for e in yaml.load(file.read_text(), yaml.CSafeLoader)}

    def runs(name: str) -> bool:
        entry = entries[name]
        keys = {key.strip() for names in entry.get("dispatch", {}) for key in names.split(",")}
        delegate = entry.get("structured_delegate")
        if "MPS" in keys or not (keys or delegate) or "CompositeImplicitAutograd" in keys:
            return True
        if keys & _PREPARING:
            base, _, overload = name.partition(".")
            return all(runs(out) for out in {f"{base}.out", f"{base}.{overload}_out"} & entries.keys() - {name})
        return bool(delegate) and runs(delegate)

    return frozenset(name for name in entries if not runs(name))


class MacTensor(torch.Tensor):
    """A tensor on the stand-in; `held` is where its numbers are."""

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        if held.dtype in REFUSED_DTYPES:
            raise TypeError(f"MPS has no {held.dtype}")
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=_STAND_IN,
        )  # fmt: skip

    def __init__(self, held: torch.Tensor):
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class StandIn(TorchDispatchMode):
    """A context in which there is a Mac's GPU. `used`: names of the operators that ran on it."""

    def __init__(self):
        super().__init__()
        self.used: set[str] = set()
        self._names = _DeviceNames()

    def __enter__(self):
        self._names.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self._names.__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, self.used)


class _DeviceNames(TorchFunctionMode):
    """ "mps" becomes the stand-in wherever it is named; numbers from Python reach it by way of the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = _mapped(_stand_in, list(args)), _mapped(_stand_in, kwargs or {})
        if func is torch.Tensor.new_tensor:
            like, *args = args
            func, kwargs = torch.tensor, {"dtype": like.dtype, "device": like.device} | kwargs
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == _STAND_IN:
            return func(*args, **kwargs | {"device": None}).to(_STAND_IN)
        return func(*args, **kwargs)


def _stand_in(value):
    named = isinstance(value, str | torch.device) and str(value) == "mps"
    return _STAND_IN if named else value


def _mapped(function, value):
    """`function` of every leaf of nested lists, tuples and dicts."""
    if isinstance(value, list | tuple):
        return type(value)([_mapped(function, item) for item in value])
    if isinstance(value, dict):
        return {key: _mapped(function, item) for key, item in value.items()}
    return function(value)


def _run(func, args, kwargs, used: set[str] | None = None):
    ours: dict[int, MacTensor] = {}
    others: list[torch.Tensor] = []

    def unwrap(value):
        if isinstance(value, MacTensor):
            ours[id(value.held)] = value
            return value.held
        if isinstance(value, torch.Tensor):
            others.append(value)
        return value

    args, kwargs = _mapped(unwrap, args), _mapped(unwrap, kwargs)
    device = kwargs.get("device")
    there = bool(ours) if device is None else torch.device(device) == _STAND_IN
    if ours or there:
        name = func.name().removeprefix("aten::")
        _refuse(name, bool(ours), others, kwargs)
        if used is not None:
            used.add(name)
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    out = func(*args, **kwargs)
    if not there:
        return out

    def wrap(value):
        if not isinstance(value, torch.Tensor):
            return value
        return ours[id(value)] if id(value) in ours else MacTensor(value)

    return _mapped(wrap, out)


def _refuse(name: str, any_of_ours: bool, others: list[torch.Tensor], kwargs: dict) -> None:
    """Raises what a Mac would for an operator that has an argument or a result on its GPU."""
    if name in operators_without_mps():
        raise NotImplementedError(f"{name} has no MPS kernel")
    if any_of_ours and name not in _TAKES_BOTH_DEVICES and any(tensor.dim() > 0 for tensor in others):
        raise RuntimeError(f"{name}: some tensors are on mps, some on the CPU")
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"{name}: the generator is on the CPU, the tensor on mps")
