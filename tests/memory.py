"""What a computation holds at once, forward and backward, on any machine: all bytes at the peak, the largest tensor."""

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


class LargestTensor(TorchDispatchMode):
    """A context that watches every operator, those of the backward pass too.

    numel: elements of the largest tensor made; a view counts as what it looks at, an expanded tensor as what is stored.
    operator: which made it. operators: all that ran, as "aten::mm". What a fused kernel uses inside is not seen.
    """

    def __init__(self):
        super().__init__()
        self.numel, self.operator = 0, ""
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        name = func.name().partition(".")[0]
        self.operators.add(name)
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                numel = tensor.untyped_storage().nbytes() // tensor.element_size()
                if numel > self.numel:
                    self.numel, self.operator = numel, name
        return made


class NoReadBack(TorchDispatchMode):
    """A context in which no number may be read from a tensor by Python: on a GPU it would have to wait for it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().partition(".")[0]
        assert name not in {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::nonzero"}, name
        return func(*args, **(kwargs or {}))
