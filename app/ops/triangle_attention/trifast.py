"""Triangle attention by the package trifast: one kernel forward, three backward, nothing of N^3 in memory."""

import os

import trifast
import triton
from torch import Tensor
from trifast import triton as kernels

from app.devices import current
from app.ops.absent import filled

# By itself the package tries ten shapes of tiles a kernel for every precision and power of two of lengths: minutes, at
# the end of which two machines may differ. One serves all; TRIFAST_FORCE_TUNE, its own switch, gives the search back.
# Each is the fastest of those tried on an H100, one kernel at a time, at 256 residues, 4 heads of 32, in bfloat16.
TILES = {
    "_fwd": {"BLOCK_J": 128, "BLOCK_K": 32, "num_warps": 4, "num_stages": 2},
    "_bwd_q": {"BLOCK_J": 64, "BLOCK_K": 64, "num_warps": 4, "num_stages": 2},
    "_bwd_kv": {"BLOCK_J": 64, "BLOCK_K": 64, "num_warps": 4, "num_stages": 2},
    "_bwd_b": {"BLOCK_J": 64, "BLOCK_K": 64, "num_warps": 4, "num_stages": 2},
}


def use_tiles(tiles: dict[str, dict[str, int]]) -> None:
    """Give each of the package's kernels one shape of tiles."""
    for name, tile in tiles.items():
        blocks = {key: size for key, size in tile.items() if key.startswith("BLOCK")}
        config = triton.Config(blocks, num_warps=tile["num_warps"], num_stages=tile["num_stages"])
        getattr(kernels, name).configs = [config]


if os.environ.get("TRIFAST_FORCE_TUNE", "0") == "0":
    use_tiles(TILES)


def triangle_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """As the reference, in v's dtype with float32 accumulation. The package copies q, k and v, heads before rows."""
    keys, some = filled(mask)
    heads_first = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))
    with current(q.device):
        out = trifast.triangle_attention(*heads_first, bias.to(v.dtype), ~keys)  # its mask tells what is absent
    return out.transpose(1, 2) * some[:, :, None, None, None]
