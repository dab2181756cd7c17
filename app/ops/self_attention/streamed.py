"""Self-attention in one kernel of our own (Triton): keys stream past a tile of queries, and the mask is read with them.

The softmax is taken on the way (Milakov & Gimelshein 2018), so that nothing over pairs is written, as in FlashAttention
(Dao et al. 2022). It has no backward pass.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from app.devices import compute_dtype, current
from app.ops.self_attention.tiles import Tile, tile_of

LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
"""The highest logit before there is any: finite, since the difference of two infinities is no number."""


def self_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, dropout: float = 0.0) -> Tensor:
    """As the reference, without dropout; summed in float32. In memory heads lie beside each other, [B, N, H, D], as who
    merges them wants them."""
    q, k, v = (x.to(compute_dtype(x)) for x in (q, k, v))
    return masked_attention(q, k, v, key_mask).transpose(1, 2)


@torch.library.custom_op("trunkline::masked_attention", mutates_args=())
def masked_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    """q, k, v: [B, H, N, D]; key_mask: [B, N] -> [B, N, H, D]."""
    return launch(q, k, v, key_mask, tile_of(q.shape[:3].numel(), q.shape[3], q.element_size()))


@masked_attention.register_fake
def _(q, k, v, key_mask):
    batch, heads, length, width = q.shape
    return q.new_empty(batch, length, heads, width)


def launch(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, tile: Tile) -> Tensor:
    """`masked_attention` with a given tile."""
    batch, heads, length, width = q.shape
    out = q.new_empty(batch, length, heads, width)
    if not out.numel():
        return out
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    exact = q.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    with current(q.device):
        attend[(triton.cdiv(length, tile.queries), heads, batch)](
            *(q, k, v, key_mask.contiguous(), out, length),
            *(stride for x in (q, k, v) for stride in x.stride()[:3]),
            width**-0.5 * math.log2(math.e),
            HEADS=heads,
            WIDTH=width,
            PAD=triton.next_power_of_2(width),
            QUERIES=tile.queries,
            KEYS=tile.keys,
            PRECISION="tf32x3" if exact else "tf32",
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return out


@triton.jit
def _rows(x, n, length, stride_n, WIDTH: tl.constexpr, PAD: tl.constexpr):
    """[residue, channel] of one head, zero beyond its edges. `x` points to its first number."""
    d = tl.arange(0, PAD)
    there = (n < length)[:, None]
    if WIDTH < PAD:
        there = there & (d < WIDTH)[None, :]
    return tl.load(x + n.to(tl.int64)[:, None] * stride_n + d[None, :], mask=there, other=0.0)


@triton.jit(do_not_specialize=["length"])
def attend(
    q, k, v, key_mask, out, length,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, PAD: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head of one example. scale: of logits to the base of 2."""
    h, b = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    query = _rows(q + b * q_b + h * q_h, i, length, q_n, WIDTH, PAD)
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    key_mask += b * length

    highest = tl.full((QUERIES,), LOWEST, tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mean = tl.zeros((QUERIES, PAD), tl.float32)
    for start in range(0, length, KEYS):
        j = start + tl.arange(0, KEYS)
        present = tl.load(key_mask + j, mask=j < length, other=0).to(tl.float32) > 0
        key = _rows(k, j, length, k_n, WIDTH, PAD)
        logit = tl.dot(query, key.T, input_precision=PRECISION) * scale
        logit = tl.where(present[None, :], logit, float("-inf"))

        higher = tl.maximum(highest, tl.max(logit, axis=1))
        shrink = tl.exp2(highest - higher)
        weight = tl.exp2(logit - higher[:, None])
        total = total * shrink + tl.sum(weight, axis=1)
        value = _rows(v, j, length, v_n, WIDTH, PAD)
        mean = tl.dot(weight.to(value.dtype), value, mean * shrink[:, None], input_precision=PRECISION)
        highest = higher

    # Without any key the total is exactly 0; with one, the highest logit alone weighs 1.
    none = total == 0
    mean = tl.where(none[:, None], 0.0, mean) / tl.where(none, 1.0, total)[:, None]
    d = tl.arange(0, PAD)
    rows = out + ((b * length + i) * HEADS + h)[:, None] * WIDTH + d[None, :]
    tl.store(rows, mean, mask=(i < length)[:, None] & (d < WIDTH)[None, :])
