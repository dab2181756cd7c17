"""The backward kernels: weights are made again from log-sum-exps; one pass is tiled over queries, one over keys.

With d the gradient of what the edges gave, edges meet one matrix a query: z [d; w]^T is the gradient of the weights and
the bias, and [p, d_logit] [d; w] is the gradient of z. Its rows alternate d and w, so joining and splitting is free.
"""

import triton
import triton.language as tl

from app.ops.invariant_point_attention.fused_forward import (
    LOWEST,
    edge_tile,
    head_row,
    head_tile,
    store_head_row,
    store_head_tile,
)


@triton.jit
def edge_rows(both, i, length, HEADS: tl.constexpr, H_PAD: tl.constexpr, C_Z: tl.constexpr, Z_PAD: tl.constexpr):
    """[query, 2 head, channel]: d and w in turn."""
    r, c = tl.arange(0, 2 * H_PAD), tl.arange(0, Z_PAD)
    there = (i < length)[:, None, None] & (r < 2 * HEADS)[None, :, None] & (c < C_Z)[None, None, :]
    rows = i[:, None, None] * (2 * HEADS) + r[None, :, None]
    return tl.load(both + rows * C_Z + c[None, None, :], mask=there, other=0.0)


@triton.jit
def weights_and_gradients(
    z, rows, query, key, value, d_value, key_bias, logsumexp, delta, there,
    H_PAD: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """p and the gradient of the logits, [head, key, query], in z's dtype. query, d_value: [head, channel, query]."""
    met = tl.dot(z, tl.permute(rows, (0, 2, 1)), input_precision=PRECISION)
    d_p, bias = tl.split(tl.reshape(met, (QUERIES, KEYS, H_PAD, 2)))
    logit = tl.dot(key, query, input_precision=PRECISION) + tl.permute(bias, (2, 1, 0)) + key_bias[:, :, None]
    p = tl.exp(tl.where(there, logit - logsumexp[:, None, :], LOWEST))
    d_p = tl.dot(value, d_value, input_precision=PRECISION) + tl.permute(d_p, (2, 1, 0))
    d_logit = p * (d_p - delta[:, None, :])
    return p.to(z.dtype), d_logit.to(z.dtype)


@triton.jit(do_not_specialize=["length", "batch", "keys_per_split"])
def by_queries(
    queries, keys, values, key_bias, edge, both, d_values, logsumexp, deltas,
    part_d_queries, d_edge, part_d_weight,
    length, batch, stride_b, stride_i, stride_j, keys_per_split,
    HEADS: tl.constexpr, H_PAD: tl.constexpr, WIDTH: tl.constexpr, W_PAD: tl.constexpr,
    VALUE: tl.constexpr, V_PAD: tl.constexpr, C_Z: tl.constexpr, Z_PAD: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of queries over one part of the keys: gradients of queries and edges, and this tile's of the weight."""
    tile, split, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    i = tile * QUERIES + tl.arange(0, QUERIES)
    h, c = tl.arange(0, H_PAD), tl.arange(0, Z_PAD)
    first = b * HEADS * length
    edge += b.to(tl.int64) * stride_b
    d_edge += b.to(tl.int64) * length * length * C_Z
    keys += first * WIDTH
    values += first * VALUE

    query = tl.permute(head_tile(queries + first * WIDTH, i, length, HEADS, H_PAD, WIDTH, W_PAD), (0, 2, 1))
    d_value = tl.permute(head_tile(d_values + first * VALUE, i, length, HEADS, H_PAD, VALUE, V_PAD), (0, 2, 1))
    logsumexp = head_row(logsumexp + first, i, length, HEADS, H_PAD)
    delta = head_row(deltas + first, i, length, HEADS, H_PAD)
    rows = edge_rows(both + b.to(tl.int64) * length * 2 * HEADS * C_Z, i, length, HEADS, H_PAD, C_Z, Z_PAD)

    d_query = tl.zeros((H_PAD, W_PAD, QUERIES), tl.float32)
    d_weight = tl.zeros((QUERIES, H_PAD, Z_PAD), tl.float32)
    start = split * keys_per_split
    end = tl.minimum(start + keys_per_split, length)
    for j0 in range(start, end, KEYS):
        j = j0 + tl.arange(0, KEYS)
        z = edge_tile(edge, i, j, length, end, stride_i, stride_j, C_Z, Z_PAD)
        key = head_tile(keys, j, length, HEADS, H_PAD, WIDTH, W_PAD)
        value = head_tile(values, j, length, HEADS, H_PAD, VALUE, V_PAD)
        there = (h < HEADS)[:, None, None] & (j < length)[None, :, None] & (i < length)[None, None, :]
        p, d_logit = weights_and_gradients(
            z, rows, query, key, value, d_value, head_row(key_bias + first, j, length, HEADS, H_PAD), logsumexp, delta,
            there, H_PAD, QUERIES, KEYS, PRECISION,
        )  # fmt: skip
        d_query = tl.dot(tl.permute(key, (0, 2, 1)), d_logit, d_query, input_precision=PRECISION)

        d_weight = tl.dot(tl.permute(d_logit, (2, 0, 1)), z, d_weight, input_precision=PRECISION)
        joined = tl.join(tl.permute(p, (2, 1, 0)), tl.permute(d_logit, (2, 1, 0)))
        joined = tl.reshape(joined, (QUERIES, KEYS, 2 * H_PAD))
        d_z = tl.dot(joined, rows, input_precision=PRECISION)
        at = d_edge + (i.to(tl.int64)[:, None, None] * length + j[None, :, None]) * C_Z + c[None, None, :]
        inside = (i < length)[:, None, None] & (j < length)[None, :, None] & (c < C_Z)[None, None, :]
        tl.store(at, d_z.to(z.dtype), mask=inside)

    first += split * batch * HEADS * length
    d_query = tl.permute(d_query, (0, 2, 1))
    store_head_tile(part_d_queries + first.to(tl.int64) * WIDTH, d_query, i, length, HEADS, H_PAD, WIDTH, W_PAD)
    program = (split * batch + b) * tl.num_programs(0) + tile
    at = part_d_weight + program * HEADS * C_Z + h[:, None] * C_Z + c[None, :]
    tl.store(at, tl.sum(d_weight, axis=0), mask=(h < HEADS)[:, None] & (c < C_Z)[None, :])


@triton.jit(do_not_specialize=["length", "batch", "queries_per_split"])
def by_keys(
    queries, keys, values, key_bias, edge, both, d_values, logsumexp, deltas,
    part_d_keys, part_d_values, part_d_key_bias,
    length, batch, stride_b, stride_i, stride_j, queries_per_split,
    HEADS: tl.constexpr, H_PAD: tl.constexpr, WIDTH: tl.constexpr, W_PAD: tl.constexpr,
    VALUE: tl.constexpr, V_PAD: tl.constexpr, C_Z: tl.constexpr, Z_PAD: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of keys over one part of the queries: gradients of keys, values and the keys' bias."""
    split, b = tl.program_id(1), tl.program_id(2)
    j = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    h = tl.arange(0, H_PAD)
    first = b * HEADS * length
    edge += b.to(tl.int64) * stride_b
    both += b.to(tl.int64) * length * 2 * HEADS * C_Z
    queries += first * WIDTH
    d_values += first * VALUE

    key = head_tile(keys + first * WIDTH, j, length, HEADS, H_PAD, WIDTH, W_PAD)
    value = head_tile(values + first * VALUE, j, length, HEADS, H_PAD, VALUE, V_PAD)
    bias = head_row(key_bias + first, j, length, HEADS, H_PAD)

    d_key = tl.zeros((H_PAD, KEYS, W_PAD), tl.float32)
    d_own_value = tl.zeros((H_PAD, KEYS, V_PAD), tl.float32)
    d_key_bias = tl.zeros((H_PAD, KEYS), tl.float32)
    start = split * queries_per_split
    end = tl.minimum(start + queries_per_split, length)
    for i0 in range(start, end, QUERIES):
        i = i0 + tl.arange(0, QUERIES)
        z = edge_tile(edge, i, j, end, length, stride_i, stride_j, C_Z, Z_PAD)
        rows = edge_rows(both, i, length, HEADS, H_PAD, C_Z, Z_PAD)
        query = head_tile(queries, i, length, HEADS, H_PAD, WIDTH, W_PAD)
        d_value = head_tile(d_values, i, length, HEADS, H_PAD, VALUE, V_PAD)
        there = (h < HEADS)[:, None, None] & (j < length)[None, :, None] & (i < length)[None, None, :]
        p, d_logit = weights_and_gradients(
            z, rows, tl.permute(query, (0, 2, 1)), key, value, tl.permute(d_value, (0, 2, 1)), bias,
            head_row(logsumexp + first, i, length, HEADS, H_PAD), head_row(deltas + first, i, length, HEADS, H_PAD),
            there, H_PAD, QUERIES, KEYS, PRECISION,
        )  # fmt: skip
        d_key = tl.dot(d_logit, query, d_key, input_precision=PRECISION)
        d_own_value = tl.dot(p, d_value, d_own_value, input_precision=PRECISION)
        d_key_bias += tl.sum(d_logit.to(tl.float32), axis=2)

    first += split * batch * HEADS * length
    store_head_tile(part_d_keys + first.to(tl.int64) * WIDTH, d_key, j, length, HEADS, H_PAD, WIDTH, W_PAD)
    store_head_tile(part_d_values + first.to(tl.int64) * VALUE, d_own_value, j, length, HEADS, H_PAD, VALUE, V_PAD)
    store_head_row(part_d_key_bias + first, d_key_bias, j, length, HEADS, H_PAD)
