"""What a computation holds at once, on any machine: the largest tensor that an operator made."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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
