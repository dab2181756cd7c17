"""The edge transition's MLP in Triton: a tile of pairs goes through all its layers on the chip.

Pairs are rows of one matrix [B N N, width], whatever example and node they belong to, so that an odd length leaves no
tile half empty. The hidden layer is a tuple of blocks, since the sides of a tile are powers of two and 384 is none.
Edges and weights come by tensor descriptors, which pad with zeros and, from Hopper on, cost no registers.
"""

import triton
import triton.language as tl


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
def _layers(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, w3_edge, kept_first, kept_second, top, pair, there,
            length, hidden: tl.constexpr, out: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_H: tl.constexpr,
            BLOCK_K: tl.constexpr, BLOCK_O: tl.constexpr, STAGES: tl.constexpr,
            KEEP: tl.constexpr):  # fmt: skip
    """The last layer before its norm, [pairs, out] in float32; KEEP: both hidden layers are written out.

    The second one goes by in blocks of BLOCK_K, each at once put to use.
    """
    row = pair // length  # pair = (b N + i) N + j
    node_i, node_j = row, row // length * length + pair % length
    edges = edge.load([top, 0])
    first = ()
    for begin in tl.static_range(0, hidden, BLOCK_H):
        before = _rows(first_i, node_i, there, begin, hidden, BLOCK_H)
        before += _rows(first_j, node_j, there, begin, hidden, BLOCK_H)
        before = tl.dot(edges, w1.load([begin, 0]).T, before)
        first += (tl.maximum(before, 0.0).to(edges.dtype),)
    if KEEP:
        for number in tl.static_range(0, (hidden + BLOCK_H - 1) // BLOCK_H):
            kept_first.store([top, number * BLOCK_H], first[number])

    last = _rows(last_i, node_i, there, 0, out, BLOCK_O) + _rows(last_j, node_j, there, 0, out, BLOCK_O)
    last = tl.dot(edges, w3_edge.load([0, 0]).T, last)
    for start in tl.range(0, hidden, BLOCK_K, num_stages=STAGES):
        summed = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        for block in tl.static_range(0, (hidden + BLOCK_H - 1) // BLOCK_H):
            summed = tl.dot(first[block], w2.load([start, block * BLOCK_H]).T, summed)
        second = tl.maximum(summed + _vector(b2, start, hidden, BLOCK_K)[None, :], 0.0).to(edges.dtype)
        if KEEP:
            kept_second.store([top, start], second)
        last = tl.dot(second, w3.load([0, start]).T, last)
    return last


@triton.jit
def _standardised(x, width: tl.constexpr, BLOCK: tl.constexpr, eps):
    """Rows with mean 0 and variance 1, and what they were divided by, inverted."""
    centred = x - tl.sum(x, 1)[:, None] / width
    if width < BLOCK:
        centred = tl.where((tl.arange(0, BLOCK) < width)[None, :], centred, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 1) / width + eps)
    return centred * rstd[:, None], rstd


@triton.jit
def forward_kernel(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, w3_edge, norm_weight, norm_bias, mask,
                   result, num_pairs, length, eps, hidden: tl.constexpr, out: tl.constexpr, BLOCK_M: tl.constexpr,
                   BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_O: tl.constexpr,
                   STAGES: tl.constexpr):  # fmt: skip
    """From edges to normed, masked edges: each is read once and written once."""
    top = tl.program_id(0) * BLOCK_M
    pair = top + tl.arange(0, BLOCK_M)
    there = pair < num_pairs
    last = _layers(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, w3_edge, None, None, top, pair, there,
                   length, hidden, out, BLOCK_M, BLOCK_H, BLOCK_K, BLOCK_O, STAGES, False)  # fmt: skip
    normed, _ = _standardised(last, out, BLOCK_O, eps)
    normed = normed * _vector(norm_weight, 0, out, BLOCK_O)[None, :] + _vector(norm_bias, 0, out, BLOCK_O)[None, :]
    normed *= tl.load(mask + pair, mask=there, other=0.0)[:, None]
    result.store([top, 0], normed.to(result.dtype))


@triton.jit
def remake_kernel(grad, edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, w3_edge, norm_weight, mask, kept_first,
                  kept_second, grad_last, grad_norm_weight, grad_norm_bias, first_pair, num_pairs, length, eps,
                  hidden: tl.constexpr, out: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_H: tl.constexpr,
                  BLOCK_K: tl.constexpr, BLOCK_O: tl.constexpr, STAGES: tl.constexpr):  # fmt: skip
    """The way back, first part: hidden layers made again and written out, and the gradient of the last one before its
    norm. Gradients of the norm's own weights come as sums over each tile, [tiles, out]."""
    tile = tl.program_id(0)
    top = tile * BLOCK_M
    here = top + tl.arange(0, BLOCK_M)
    there = here < num_pairs
    last = _layers(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, w3_edge, kept_first, kept_second, top,
                   first_pair + here, there, length, hidden, out, BLOCK_M, BLOCK_H, BLOCK_K, BLOCK_O, STAGES,
                   True)  # fmt: skip
    normed, rstd = _standardised(last, out, BLOCK_O, eps)
    above = grad.load([top, 0]).to(tl.float32) * tl.load(mask + here, mask=there, other=0.0)[:, None]
    outs = tl.arange(0, BLOCK_O)
    tl.store(grad_norm_weight + tile * out + outs, tl.sum(above * normed, 0), mask=outs < out)
    tl.store(grad_norm_bias + tile * out + outs, tl.sum(above, 0), mask=outs < out)
    above *= _vector(norm_weight, 0, out, BLOCK_O)[None, :]
    along = tl.sum(above * normed, 1)[:, None] / out
    above = (above - tl.sum(above, 1)[:, None] / out - normed * along) * rstd[:, None]
    grad_last.store([top, 0], above.to(grad_last.dtype))


@triton.jit
def backward_kernel(grad_last, kept_first, kept_second, w1, w2, w3, w3_edge, grad_first, grad_second, grad_edge,
                    hidden: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
                    STAGES: tl.constexpr):  # fmt: skip
    """The way back, second part: the mirror image of the forward pass, from the last layer's gradient to the edges'.

    The gradients of both hidden layers, before their ReLU, are written out for the products that give the weights'.
    """
    top = tl.program_id(0) * BLOCK_M
    last = grad_last.load([top, 0])
    second = ()
    for begin in tl.static_range(0, hidden, BLOCK_H):
        above = tl.dot(last, w3.load([0, begin]))
        above = tl.where(kept_second.load([top, begin]) > 0, above, 0.0).to(last.dtype)
        grad_second.store([top, begin], above)
        second += (above,)

    into_edge = tl.dot(last, w3_edge.load([0, 0]))
    for start in tl.range(0, hidden, BLOCK_K, num_stages=STAGES):
        first = tl.dot(second[0], w2.load([0, start]))
        for block in tl.static_range(1, (hidden + BLOCK_H - 1) // BLOCK_H):
            first = tl.dot(second[block], w2.load([block * BLOCK_H, start]), first)
        below = tl.where(kept_first.load([top, start]) > 0, first, 0.0).to(last.dtype)
        grad_first.store([top, start], below)
        into_edge = tl.dot(below, w1.load([start, 0]), into_edge)
    grad_edge.store([top, 0], into_edge.to(last.dtype))
