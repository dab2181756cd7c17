"""Random arguments of the sizes of ESM-2 650M: 20 heads of 64."""

from itertools import accumulate
from typing import Any

import torch

from app.ops.esm_attention.reference import Sequences


def example(length: int, batch: int = 1, seed: int = 0, width: int = 64, num_heads: int = 20) -> dict[str, Any]:
    """Float64 on the CPU; the first sequence has `length` tokens, each further one a third less than the one before."""
    source = torch.Generator().manual_seed(seed)
    lengths = tuple(max(1, length * 2**number // 3**number) for number in range(batch))
    sequences = Sequences(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), lengths)
    tokens = (sum(lengths), num_heads, width)
    q, k, v = (torch.randn(tokens, generator=source, dtype=torch.float64) for _ in range(3))
    return {"q": q, "k": k, "v": v, "sequences": sequences}
