"""The edge embedding in Triton: a tile of pairs is gathered, goes through both layers and is written once, as edges.

Pairs are rows of one matrix [B N N, width], whatever example and residue they belong to, so that an odd length leaves
no tile half empty. Widths are padded to powers of two.
"""

import triton
import triton.language as tl


@triton.jit
def forward_kernel(of_i, of_j, by_offset, by_bin, positions, lower, chain, same_chain, w2, b2, w3, b3,
                   norm_weight, norm_bias, mask, result, num_pairs, length, eps, num_trans: tl.constexpr,
                   num_bins: tl.constexpr, hidden: tl.constexpr, middle: tl.constexpr, out: tl.constexpr,
                   HAS_CHAIN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
                   BLOCK_O: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Arguments as of `gathered.edges`; lower: edges of the distograms' bins, [num_bins]; BLOCK_*: sides of a tile,
    which are pairs and the widths of the three layers."""
    pair = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)  # (b N + i) N + j
    there = pair < num_pairs
    row = pair // length
    column = row // length * length + pair % length
    first = _rows(of_i, row, there, hidden, BLOCK_H) + _rows(of_j, column, there, hidden, BLOCK_H)
    first += _rows(by_offset, row % length - pair % length + length - 1, there, hidden, BLOCK_H)
    for place in tl.static_range(num_trans):
        squared = tl.zeros((BLOCK_M,), tl.float32)
        for axis in tl.static_range(3):
            here = tl.load(positions + (row * num_trans + place) * 3 + axis, mask=there, other=0.0)
            other = tl.load(positions + (column * num_trans + place) * 3 + axis, mask=there, other=0.0)
            squared += (here - other) * (here - other)
        number = _bin(tl.sqrt_rn(squared), lower, num_bins, BLOCK_M)
        first += _rows(by_bin + place * (num_bins + 1) * hidden, number, there, hidden, BLOCK_H)
    if HAS_CHAIN:
        same = tl.load(chain + row, mask=there, other=0) == tl.load(chain + column, mask=there, other=0)
        first += tl.where(same, 1.0, 0.0)[:, None] * _vector(same_chain, hidden, BLOCK_H)[None, :]

    first = tl.maximum(first, 0.0).to(w2.dtype.element_ty)
    second = tl.dot(first, _turned(w2, hidden, middle, BLOCK_H, BLOCK_K), input_precision=PRECISION)
    second = tl.maximum(second + _vector(b2, middle, BLOCK_K)[None, :], 0.0).to(w3.dtype.element_ty)
    last = tl.dot(second, _turned(w3, middle, out, BLOCK_K, BLOCK_O), input_precision=PRECISION)
    last += _vector(b3, out, BLOCK_O)[None, :]

    outs = tl.arange(0, BLOCK_O)
    centred = tl.where((outs < out)[None, :], last - tl.sum(last, 1)[:, None] / out, 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred, 1) / out + eps)[:, None]
    normed = normed * _vector(norm_weight, out, BLOCK_O)[None, :] + _vector(norm_bias, out, BLOCK_O)[None, :]
    normed *= tl.load(mask + pair, mask=there, other=0.0).to(tl.float32)[:, None]
    inside = there[:, None] & (outs < out)[None, :]
    tl.store(result + pair[:, None] * out + outs[None, :], normed.to(result.dtype.element_ty), mask=inside)


@triton.jit
def _bin(distance, lower, num_bins: tl.constexpr, BLOCK_M: tl.constexpr):
    """As `distogram.bin_of`: how many bins begin below a distance, and 0 for one on a bin's edge."""
    number, on_edge = tl.zeros((BLOCK_M,), tl.int32), tl.zeros((BLOCK_M,), tl.int32)
    for place in range(num_bins):
        begin = tl.load(lower + place)
        number += (distance > begin).to(tl.int32)
        on_edge += (distance == begin).to(tl.int32)
    return tl.where(on_edge > 0, 0, number)


@triton.jit
def _rows(base, rows, there, width: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of a matrix [rows, width], zero beyond its edges."""
    columns = tl.arange(0, BLOCK)
    inside = there[:, None] & (columns < width)[None, :]
    return tl.load(base + rows[:, None] * width + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _vector(base, width: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    return tl.load(base + columns, mask=columns < width, other=0.0).to(tl.float32)


@triton.jit
def _turned(weight, inputs: tl.constexpr, outputs: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr):
    """A weight [outputs, inputs] with its inputs first."""
    rows, columns = tl.arange(0, BLOCK_I), tl.arange(0, BLOCK_O)
    inside = (rows < inputs)[:, None] & (columns < outputs)[None, :]
    return tl.load(weight + columns[None, :] * inputs + rows[:, None], mask=inside, other=0.0)
