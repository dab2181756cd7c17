"""What the memory tests do in a process of their own."""

import torch

from app.bench import memory

KEPT = []


def peaks(*sizes: int) -> list[int]:
    """The peaks of making tensors of so many bytes, one call after the other, after one as large was made and freed."""
    memory.return_what_is_freed()
    torch.ones(max(sizes), dtype=torch.uint8)
    return [memory.peak_bytes(lambda size=size: torch.ones(size, dtype=torch.uint8), _CPU) for size in sizes]


def peak_beside(kept: int, made: int) -> int:
    """That of one tensor where another is there already."""
    memory.return_what_is_freed()
    KEPT.append(torch.ones(kept, dtype=torch.uint8))
    return memory.peak_bytes(lambda: torch.ones(made, dtype=torch.uint8), _CPU)


_CPU = torch.device("cpu")
