"""The edge transition's MLP in Triton: a tile of pairs goes through all its layers on the chip.

Pairs are rows of one matrix [B N N, width], whatever example and node they belong to, so that no tile is left half empty
by an odd length. The hidden layer is a tuple of blocks, since the sides of a tile are powers of two and 384 is none.
Edges and weights come by tensor descriptors, which pad with zeros and, from Hopper on, cost no registers.
"""

import triton
import triton.language as tl


@triton.jit
def _nodes(pair, length):
    """Rows of node i and node j in a table [B N, width]; pair = (b N + i) N + j."""
    row = pair // length
    return row, row // length * length + pair % length


@triton.jit
def _rows(base, rows, there, start: tl.constexpr, width: tl.constexpr, BLOCK: tl.constexpr):
    """Columns from `start` of rows of a matrix [rows, width], zero beyond its edges, in float32."""
    columns = start + tl.arange(0, BLOCK)
    inside = there[:, None]
    if start + BLOCK > width:
        inside = inside & (columns < width)[None, :]
    return tl.load(base + rows[:, None] * width + columns[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _vector(base, start, width: tl.constexpr, BLOCK: tl.constexpr):
    columns = start + tl.arange(0, BLOCK)
    return tl.load(base + columns, mask=columns < width, other=0.0).to(tl.float32)


@triton.jit
def forward_kernel(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, w3_edge, norm_weight, norm_bias, mask, result,
                   num_pairs, length, eps, hidden: tl.constexpr, out: tl.constexpr, BLOCK_M: tl.constexpr,
                   BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_O: tl.constexpr, STAGES: tl.constexpr,
                   PRECISION: tl.constexpr):  # fmt: skip
    """From edges to normed, masked edges. The second layer goes by in blocks of BLOCK_K, each at once put to use."""
    top = tl.program_id(0) * BLOCK_M
    pair = top + tl.arange(0, BLOCK_M)
    there = pair < num_pairs
    node_i, node_j = _nodes(pair, length)
    edges = edge.load([top, 0])
    first = ()
    for begin in tl.static_range(0, hidden, BLOCK_H):
        before = _rows(first_i, node_i, there, begin, hidden, BLOCK_H)
        before += _rows(first_j, node_j, there, begin, hidden, BLOCK_H)
        before = tl.dot(edges, w1.load([begin, 0]).T, before, input_precision=PRECISION)
        first += (tl.maximum(before, 0.0).to(edges.dtype),)

    last = _rows(last_i, node_i, there, 0, out, BLOCK_O) + _rows(last_j, node_j, there, 0, out, BLOCK_O)
    last = tl.dot(edges, w3_edge.load([0, 0]).T, last, input_precision=PRECISION)
    for start in tl.range(0, hidden, BLOCK_K, num_stages=STAGES):
        second = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        for block in tl.static_range(0, (hidden + BLOCK_H - 1) // BLOCK_H):
            second = tl.dot(first[block], w2.load([start, block * BLOCK_H]).T, second, input_precision=PRECISION)
        second = tl.maximum(second + _vector(b2, start, hidden, BLOCK_K)[None, :], 0.0)
        last = tl.dot(second.to(edges.dtype), w3.load([0, start]).T, last, input_precision=PRECISION)

    outs = tl.arange(0, BLOCK_O)
    centred = last - tl.sum(last, 1)[:, None] / out
    if BLOCK_O > out:
        centred = tl.where((outs < out)[None, :], centred, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 1) / out + eps)
    normed = centred * rstd[:, None] * _vector(norm_weight, 0, out, BLOCK_O)[None, :]
    normed += _vector(norm_bias, 0, out, BLOCK_O)[None, :]
    normed *= tl.load(mask + pair, mask=there, other=0.0)[:, None]
    result.store([top, 0], normed.to(edges.dtype))
