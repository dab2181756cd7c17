"""How much memory tensors take at once, in a forward pass and in the backward pass after it."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Memory(TorchDispatchMode):
    """`with Memory() as memory:` counts the bytes of all tensors made inside that still live.

    peak: the most there ever were. Agrees with the allocator's own count, as torch's profiler shows it.
    """

    def __init__(self):
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in storages((args, kwargs))}
        for storage in storages(out):
            if storage._cdata not in given and storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.sizes.values()))
        return out


def storages(tree) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def peak(function, *arguments, backward: bool = True) -> int:
    """Bytes at the peak of `function(*arguments)` and, unless told otherwise, of the gradients of all its arguments."""
    with Memory() as memory, torch.set_grad_enabled(backward):
        out = function(*arguments)
        if backward:
            out.square().sum().backward()
    return memory.peak
