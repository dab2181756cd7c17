"""The forward kernels: a tile of queries streams the edges once, and no tensor over pairs is written.

Tiles are [head, key, query] where heads are independent products, and [query, key, head] or [query, key, channel] where
queries are: the edges of a query meet all heads, the keys of a head meet all queries.
"""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)
"""Logit of what is not there; finite, since the difference of two infinities is no number."""


@triton.jit
def edge_tile(edge, i, j, i_end, j_end, stride_i, stride_j, C_Z: tl.constexpr, C_PAD: tl.constexpr):
    """[query, key, channel], zero from the ends on. `edge` points to the example's first number."""
    c = tl.arange(0, C_PAD)
    rows = edge + i.to(tl.int64)[:, None, None] * stride_i
    there = (i < i_end)[:, None, None] & (j < j_end)[None, :, None] & (c < C_Z)[None, None, :]
    return tl.load(rows + j[None, :, None] * stride_j + c[None, None, :], mask=there, other=0.0)


@triton.jit
def head_tile(x, n, length, HEADS: tl.constexpr, H_PAD: tl.constexpr, WIDTH: tl.constexpr, W_PAD: tl.constexpr):
    """[head, residue, channel] of [H, N, width], zero beyond the edges of the tensor."""
    h, w = tl.arange(0, H_PAD), tl.arange(0, W_PAD)
    there = (h < HEADS)[:, None, None] & (n < length)[None, :, None] & (w < WIDTH)[None, None, :]
    return tl.load(x + (h[:, None, None] * length + n[None, :, None]) * WIDTH + w[None, None, :], mask=there, other=0.0)


@triton.jit
def head_row(x, n, length, HEADS: tl.constexpr, H_PAD: tl.constexpr):
    """[head, residue] of [H, N], zero beyond the edges of the tensor."""
    h = tl.arange(0, H_PAD)
    there = (h < HEADS)[:, None] & (n < length)[None, :]
    return tl.load(x + h[:, None] * length + n[None, :], mask=there, other=0.0)


@triton.jit
def store_head_tile(
    x, tile, n, length, HEADS: tl.constexpr, H_PAD: tl.constexpr, WIDTH: tl.constexpr, W_PAD: tl.constexpr
):
    h, w = tl.arange(0, H_PAD), tl.arange(0, W_PAD)
    there = (h < HEADS)[:, None, None] & (n < length)[None, :, None] & (w < WIDTH)[None, None, :]
    tl.store(x + (h[:, None, None] * length + n[None, :, None]) * WIDTH + w[None, None, :], tile, mask=there)


@triton.jit
def store_head_row(x, row, n, length, HEADS: tl.constexpr, H_PAD: tl.constexpr):
    h = tl.arange(0, H_PAD)
    tl.store(x + h[:, None] * length + n[None, :], row, mask=(h < HEADS)[:, None] & (n < length)[None, :])


@triton.jit(do_not_specialize=["length", "batch", "keys_per_split"])
def attend(
    queries, keys, values, key_bias, edge, bias_weight,
    part_values, part_edges, part_logsumexp,
    length, batch, stride_b, stride_i, stride_j, keys_per_split, bias_scale,
    HEADS: tl.constexpr, H_PAD: tl.constexpr, WIDTH: tl.constexpr, W_PAD: tl.constexpr,
    VALUE: tl.constexpr, V_PAD: tl.constexpr, C_Z: tl.constexpr, Z_PAD: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of queries over one part of the keys, all heads: means and log-sum-exp of that part."""
    split, b = tl.program_id(1), tl.program_id(2)
    i = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    h, c = tl.arange(0, H_PAD), tl.arange(0, Z_PAD)
    first = b * HEADS * length
    edge += b.to(tl.int64) * stride_b
    keys += first * WIDTH
    values += first * VALUE
    key_bias += first

    query = tl.permute(head_tile(queries + first * WIDTH, i, length, HEADS, H_PAD, WIDTH, W_PAD), (0, 2, 1))
    inside = (h < HEADS)[None, :] & (c < C_Z)[:, None]
    w = bias_scale * tl.load(bias_weight + h[None, :] * C_Z + c[:, None], mask=inside, other=0.0).to(tl.float32)
    w = tl.broadcast_to(w.to(edge.dtype.element_ty)[None], (QUERIES, Z_PAD, H_PAD))

    highest = tl.full((H_PAD, QUERIES), LOWEST, tl.float32)
    total = tl.zeros((H_PAD, QUERIES), tl.float32)
    by_head = tl.zeros((H_PAD, V_PAD, QUERIES), tl.float32)
    by_query = tl.zeros((QUERIES, H_PAD, Z_PAD), tl.float32)
    start = split * keys_per_split
    end = tl.minimum(start + keys_per_split, length)
    for j0 in range(start, end, KEYS):
        j = j0 + tl.arange(0, KEYS)
        z = edge_tile(edge, i, j, length, end, stride_i, stride_j, C_Z, Z_PAD)
        key = head_tile(keys, j, length, HEADS, H_PAD, WIDTH, W_PAD)
        bias = tl.permute(tl.dot(z, w, input_precision=PRECISION), (2, 1, 0))
        logit = tl.dot(key, query, input_precision=PRECISION) + bias
        logit += head_row(key_bias, j, length, HEADS, H_PAD)[:, :, None]
        logit = tl.where((j < length)[None, :, None], logit, LOWEST)

        higher = tl.maximum(highest, tl.max(logit, axis=1))
        shrink = tl.exp(highest - higher)
        p = tl.exp(logit - higher[:, None, :])
        total = total * shrink + tl.sum(p, axis=1)
        highest = higher
        p = p.to(z.dtype)

        value = tl.permute(head_tile(values, j, length, HEADS, H_PAD, VALUE, V_PAD), (0, 2, 1))
        by_head = tl.dot(value, p, by_head * shrink[:, None, :], input_precision=PRECISION)
        by_query *= tl.permute(shrink, (1, 0))[:, :, None]
        by_query = tl.dot(tl.permute(p, (2, 0, 1)), z, by_query, input_precision=PRECISION)

    # A part without any key weighs nothing when parts are joined; its means only have to be numbers.
    total = tl.where(total > 0, total, 1.0)
    by_head = tl.permute(by_head / total[:, None, :], (0, 2, 1))
    by_query = tl.permute(by_query, (1, 0, 2)) / total[:, :, None]
    first += split * batch * HEADS * length
    store_head_tile(part_values + first.to(tl.int64) * VALUE, by_head, i, length, HEADS, H_PAD, VALUE, V_PAD)
    store_head_tile(part_edges + first.to(tl.int64) * C_Z, by_query, i, length, HEADS, H_PAD, C_Z, Z_PAD)
    store_head_row(part_logsumexp + first, highest + tl.log(total), i, length, HEADS, H_PAD)
