"""The forward kernels: a tile of queries streams the edges once, and no tensor over pairs is written.

Tiles are [head, key, query] where heads are independent products, and [query, key, head] or [query, key, channel] where
queries are: the edges of a query meet all heads, the keys of a head meet all queries.
"""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)
"""Logit of what is not there; finite, since the difference of two infinities is no number."""


@triton.jit
def edge_tile(edge, i, j, length, stride_i, stride_j, C_Z: tl.constexpr, C_PAD: tl.constexpr):
    """[query, key, channel], zero beyond the edges of the tensor. `edge` points to the example's first number."""
    c = tl.arange(0, C_PAD)
    rows = edge + i.to(tl.int64)[:, None, None] * stride_i
    there = (i < length)[:, None, None] & (j < length)[None, :, None] & (c < C_Z)[None, None, :]
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


@triton.jit
def attend(
    queries, keys, values, key_bias, edge, weight,
    part_values, part_edges, part_logsumexp,
    length, batch, stride_b, stride_i, stride_j, keys_per_split,
    HEADS: tl.constexpr, H_PAD: tl.constexpr, WIDTH: tl.constexpr, W_PAD: tl.constexpr,
    VALUE: tl.constexpr, V_PAD: tl.constexpr, C_Z: tl.constexpr, C_PAD: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SCORE_PRECISION: tl.constexpr, EDGE_PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of queries over one part of the keys, all heads: means and log-sum-exp of that part."""
    split, b = tl.program_id(1), tl.program_id(2)
    i = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    h, c = tl.arange(0, H_PAD), tl.arange(0, C_PAD)
    first = b * HEADS * length
    edge += b.to(tl.int64) * stride_b
    keys += first * WIDTH
    values += first * VALUE
    key_bias += first

    query = tl.permute(head_tile(queries + first * WIDTH, i, length, HEADS, H_PAD, WIDTH, W_PAD), (0, 2, 1))
    w = tl.load(weight + h[None, :] * C_Z + c[:, None], mask=(h < HEADS)[None, :] & (c < C_Z)[:, None], other=0.0)
    w = tl.broadcast_to(w[None], (QUERIES, C_PAD, H_PAD))

    highest = tl.full((H_PAD, QUERIES), LOWEST, tl.float32)
    total = tl.zeros((H_PAD, QUERIES), tl.float32)
    by_head = tl.zeros((H_PAD, V_PAD, QUERIES), tl.float32)
    by_query = tl.zeros((QUERIES, C_PAD, H_PAD), tl.float32)
    start = split * keys_per_split
    for j0 in range(start, tl.minimum(start + keys_per_split, length), KEYS):
        j = j0 + tl.arange(0, KEYS)
        z = edge_tile(edge, i, j, length, stride_i, stride_j, C_Z, C_PAD)
        key = head_tile(keys, j, length, HEADS, H_PAD, WIDTH, W_PAD)
        bias = tl.permute(tl.dot(z, w, input_precision=EDGE_PRECISION), (2, 1, 0))
        logit = tl.dot(key, query, input_precision=SCORE_PRECISION) + bias
        logit += head_row(key_bias, j, length, HEADS, H_PAD)[:, :, None]
        logit = tl.where((j < length)[None, :, None], logit, LOWEST)

        higher = tl.maximum(highest, tl.max(logit, axis=1))
        shrink = tl.exp(highest - higher)
        p = tl.exp(logit - higher[:, None, :])
        total = total * shrink + tl.sum(p, axis=1)
        highest = higher

        value = tl.permute(head_tile(values, j, length, HEADS, H_PAD, VALUE, V_PAD), (0, 2, 1))
        by_head = tl.dot(value, p, by_head * shrink[:, None, :], input_precision=SCORE_PRECISION)
        z_weight = tl.permute(p, (2, 1, 0)).to(z.dtype)
        by_query *= tl.permute(shrink, (1, 0))[:, None, :]
        by_query = tl.dot(tl.permute(z, (0, 2, 1)), z_weight, by_query, input_precision=EDGE_PRECISION)

    # A part without any key weighs nothing when parts are joined; its means only have to be numbers.
    total = tl.where(total > 0, total, 1.0)
    by_head = tl.permute(by_head / total[:, None, :], (0, 2, 1))
    by_query = tl.permute(by_query, (2, 0, 1)) / total[:, :, None]
    first += split * batch * HEADS * length
    store_head_tile(part_values + first.to(tl.int64) * VALUE, by_head, i, length, HEADS, H_PAD, VALUE, V_PAD)
    store_head_tile(part_edges + first.to(tl.int64) * C_Z, by_query, i, length, HEADS, H_PAD, C_Z, C_PAD)
    store_head_row(part_logsumexp + first, highest + tl.log(total), i, length, HEADS, H_PAD)


@triton.jit
def join_parts(
    part_values, part_edges, part_logsumexp, values, edges, logsumexp, rows,
    VALUE: tl.constexpr, V_PAD: tl.constexpr, C_Z: tl.constexpr, C_PAD: tl.constexpr,
    SPLITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Means over all keys from the means over parts of them. Rows are those of [B, H, N]."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    v, c = tl.arange(0, V_PAD), tl.arange(0, C_PAD)
    there = row < rows
    highest = tl.full((ROWS,), LOWEST, tl.float32)
    for split in tl.static_range(SPLITS):
        highest = tl.maximum(highest, tl.load(part_logsumexp + split * rows + row, mask=there, other=0.0))
    total = tl.zeros((ROWS,), tl.float32)
    value, edge = tl.zeros((ROWS, V_PAD), tl.float32), tl.zeros((ROWS, C_PAD), tl.float32)
    v_there, c_there = there[:, None] & (v < VALUE)[None, :], there[:, None] & (c < C_Z)[None, :]
    for split in tl.static_range(SPLITS):
        part = (split * rows + row).to(tl.int64)
        share = tl.exp(tl.load(part_logsumexp + part, mask=there, other=0.0) - highest)
        total += share
        value += share[:, None] * tl.load(part_values + part[:, None] * VALUE + v[None, :], mask=v_there, other=0.0)
        edge += share[:, None] * tl.load(part_edges + part[:, None] * C_Z + c[None, :], mask=c_there, other=0.0)
    tl.store(values + row.to(tl.int64)[:, None] * VALUE + v[None, :], value / total[:, None], mask=v_there)
    tl.store(edges + row.to(tl.int64)[:, None] * C_Z + c[None, :], edge / total[:, None], mask=c_there)
    tl.store(logsumexp + row, highest + tl.log(total), mask=there)
