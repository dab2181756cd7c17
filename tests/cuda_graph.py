"""A stand-in for CUDA graphs, on the CPU: what is captured is a list of operators and the memory they read and write.

As on a GPU, a replay runs no Python: a number that was read on the host, a branch that was taken, and the memory of
every tensor are those of the capture. Unlike on a GPU, capturing computes as well.
"""

import sys
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS_ON_HOST = {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal", "masked_select", "_unique2"}


class Graph(TorchDispatchMode):
    """Takes the place of torch.cuda.CUDAGraph."""

    made: list["Graph"] = []  # noqa: RUF012 - for tests to look at

    def __init__(self):
        super().__init__()
        self.operators: list[tuple] = []
        self.replays = 0
        Graph.made.append(self)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in _READS_ON_HOST or _sized_by_numbers(name, args, kwargs or {}):
            raise RuntimeError(f"{name}: operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        if name == "lift_fresh":  # torch.tensor: on a GPU, numbers on their way there
            raise RuntimeError("Cannot copy between CPU and CUDA tensors during CUDA graph capture")
        self.operators.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        self.replays += 1
        with torch._C._AutoDispatchBelowAutograd():  # which would object to writing where a backward pass reads
            for func, args, kwargs, out in self.operators:
                for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def _sized_by_numbers(name: str, args: tuple, kwargs: dict) -> bool:
    """Indexing by a mask, or repeating by a tensor: only the numbers tell the result's size."""
    if name == "repeat_interleave":
        return isinstance(args[0], torch.Tensor) and len(args) == 1 and kwargs.get("output_size") is None
    return name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
        index is not None and index.dtype == torch.bool for index in args[1]
    )


@contextmanager
def capture(graph: Graph, **how):
    """Takes the place of torch.cuda.graph. On a GPU nothing is drawn while capturing."""
    generator = torch.get_rng_state()
    with graph:
        yield
    torch.set_rng_state(generator)


def install(monkeypatch: pytest.MonkeyPatch, module: str) -> list[Graph]:
    """From now on the CPU has CUDA graphs, as that module is told; those that will have been made."""
    monkeypatch.setattr(sys.modules[module], "has_cuda_graphs", lambda device: True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(Graph, "made", [])
    return Graph.made
