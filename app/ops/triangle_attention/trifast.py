"""Triangle attention by the package trifast: one kernel forward, three backward, nothing of N^3 in memory."""

import trifast
from torch import Tensor

from app.ops.absent import filled


def triangle_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """As the reference, in v's dtype with float32 accumulation. The package copies q, k and v, heads before rows."""
    keys, some = filled(mask)
    heads_first = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))
    out = trifast.triangle_attention(*heads_first, bias.to(v.dtype), ~keys)  # its mask tells what is absent
    return out.transpose(1, 2) * some[:, :, None, None, None]
