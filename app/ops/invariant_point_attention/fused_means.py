"""Kernels after the attention: parts of the keys are joined, and points go back to local space."""

import triton
import triton.language as tl

from app.ops.invariant_point_attention.fused_forward import LOWEST
from app.ops.invariant_point_attention.fused_geometry import (
    of_residues,
    outer_products,
    rotated,
    store_vectors,
    vectors,
)


@triton.jit(do_not_specialize=["length", "batch", "splits"])
def narrow(
    part_values, part_edges, part_logsumexp, rotmats, trans, mask, centre,
    scalars, points, edges, logsumexp, length, batch, splits,
    HEADS: tl.constexpr, H_PAD: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr,
    PV: tl.constexpr, PV_PAD: tl.constexpr, VALUE: tl.constexpr, C_Z: tl.constexpr, Z_PAD: tl.constexpr,
    RESIDUES: tl.constexpr,
):  # fmt: skip
    """Means over all keys from the means over parts of them, [B, N, H, ...]; points in local space. 0 where absent."""
    b = tl.program_id(1)
    n, h = tl.program_id(0) * RESIDUES + tl.arange(0, RESIDUES), tl.arange(0, H_PAD)
    c, p, e = (
        tl.arange(0, C_PAD)[None, None, :],
        tl.arange(0, PV_PAD)[None, None, :],
        tl.arange(0, Z_PAD)[None, None, :],
    )
    there = (n < length)[:, None, None]
    inside = there & (h < HEADS)[None, :, None]
    row = (b * HEADS + h[None, :, None]) * length + n[:, None, None]
    rows = batch * HEADS * length

    highest = tl.full((RESIDUES, H_PAD, 1), LOWEST, tl.float32)
    for split in range(splits):
        highest = tl.maximum(highest, tl.load(part_logsumexp + split * rows + row, mask=inside, other=0.0))
    total = tl.zeros((RESIDUES, H_PAD, 1), tl.float32)
    scalar, edge = tl.zeros((RESIDUES, H_PAD, C_PAD), tl.float32), tl.zeros((RESIDUES, H_PAD, Z_PAD), tl.float32)
    x, y = tl.zeros((RESIDUES, H_PAD, PV_PAD), tl.float32), tl.zeros((RESIDUES, H_PAD, PV_PAD), tl.float32)
    z = tl.zeros((RESIDUES, H_PAD, PV_PAD), tl.float32)
    for split in range(splits):
        part = split * rows + row
        share = tl.exp(tl.load(part_logsumexp + part, mask=inside, other=0.0) - highest)
        total += share
        scalar += share * tl.load(part_values + part * VALUE + c, mask=inside & (c < C), other=0.0)
        edge += share * tl.load(part_edges + part.to(tl.int64) * C_Z + e, mask=inside & (e < C_Z), other=0.0)
        dx, dy, dz = vectors(part_values + part * VALUE + C + p, inside & (p < PV), PV)
        x, y, z = x + share * dx, y + share * dy, z + share * dz
    tl.store(logsumexp + row, highest + tl.log(total), mask=inside)

    present = tl.load(mask + b * length + n[:, None, None], mask=there, other=0.0)
    share = present / total
    tx, ty, tz = vectors(trans + 3 * (b * length + n[:, None, None]), there, 1)
    tx, ty, tz = tx - tl.load(centre + 3 * b), ty - tl.load(centre + 3 * b + 1), tz - tl.load(centre + 3 * b + 2)
    x, y, z = x * share - tx * present, y * share - ty * present, z * share - tz * present
    x, y, z = rotated(rotmats + 9 * (b * length + n[:, None, None]), there, x, y, z, True)
    row = (b * length + n[:, None, None]) * HEADS + h[None, :, None]
    tl.store(scalars + row * C + c, scalar * share, mask=inside & (c < C))
    store_vectors(points + (row * PV + p) * 3, x, y, z, inside & (p < PV), 1)
    tl.store(edges + row.to(tl.int64) * C_Z + e, edge * share, mask=inside & (e < C_Z))


@triton.jit(do_not_specialize=["length"])
def narrow_backward(
    d_scalars, d_points, d_edges, scalars, points, edges, rotmats, trans, mask, centre, bias_weight,
    d_values, both, delta, d_rotmats, d_trans, length, bias_scale,
    HEADS: tl.constexpr, H_PAD: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr,
    PV: tl.constexpr, PV_PAD: tl.constexpr, VALUE: tl.constexpr, C_Z: tl.constexpr, Z_PAD: tl.constexpr,
    RESIDUES: tl.constexpr,
):  # fmt: skip
    """Gradients of the means, as `by_queries` and `by_keys` want them, and what the frames have of it.

    both: [B, N, 2 H, c_z], d_edges and the bias' weight in turn. delta: [B, H, N], the means times their gradients.
    """
    b = tl.program_id(1)
    n, h = tl.program_id(0) * RESIDUES + tl.arange(0, RESIDUES), tl.arange(0, H_PAD)
    c, p, e = (
        tl.arange(0, C_PAD)[None, None, :],
        tl.arange(0, PV_PAD)[None, None, :],
        tl.arange(0, Z_PAD)[None, None, :],
    )
    there = (n < length)[:, None, None]
    inside = there & (h < HEADS)[None, :, None]
    rotmats += 9 * (b * length + n[:, None, None])
    present = tl.load(mask + b * length + n[:, None, None], mask=there, other=0.0)

    row = (b * length + n[:, None, None]) * HEADS + h[None, :, None]
    d_scalar = present * tl.load(d_scalars + row * C + c, mask=inside & (c < C), other=0.0)
    scalar = tl.load(scalars + row * C + c, mask=inside & (c < C), other=0.0)
    local_x, local_y, local_z = vectors(d_points + (row * PV + p) * 3, inside & (p < PV), 1)
    local_x, local_y, local_z = present * local_x, present * local_y, present * local_z
    d_x, d_y, d_z = rotated(rotmats, inside, local_x, local_y, local_z, False)
    x, y, z = vectors(points + (row * PV + p) * 3, inside & (p < PV), 1)
    d_edge = present * tl.load(d_edges + row.to(tl.int64) * C_Z + e, mask=inside & (e < C_Z), other=0.0)
    d_edge = d_edge.to(both.dtype.element_ty)
    edge = tl.load(edges + row.to(tl.int64) * C_Z + e, mask=inside & (e < C_Z), other=0.0)

    w = bias_scale * tl.load(bias_weight + h[None, :, None] * C_Z + e, mask=inside & (e < C_Z), other=0.0).to(
        tl.float32
    )
    pair = both + (b * length + n[:, None, None]).to(tl.int64) * (2 * HEADS * C_Z) + 2 * h[None, :, None] * C_Z + e
    tl.store(pair, d_edge, mask=inside & (e < C_Z))
    tl.store(pair + C_Z, w.to(both.dtype.element_ty), mask=inside & (e < C_Z))

    # Points came out as R^T (x - t): R has the gradient (x - t) d_local^T, and x - t is R times what came out.
    x, y, z = rotated(rotmats, inside, x, y, z, False)
    d_rotation = outer_products(x, y, z, local_x, local_y, local_z)
    at = b * length + n
    for entry in tl.static_range(9):
        tl.store(d_rotmats + 9 * at + entry, d_rotation[entry], mask=n < length)
    store_vectors(d_trans + 3 * at, -of_residues(d_x), -of_residues(d_y), -of_residues(d_z), n < length, 1)

    tx, ty, tz = vectors(trans + 3 * (b * length + n[:, None, None]), there, 1)
    tx, ty, tz = tx - tl.load(centre + 3 * b), ty - tl.load(centre + 3 * b + 1), tz - tl.load(centre + 3 * b + 2)
    # Of the gradients as rounded: those of the logits of a row then sum to zero.
    dtype: tl.constexpr = d_values.dtype.element_ty
    d_scalar, d_x, d_y, d_z = d_scalar.to(dtype), d_x.to(dtype), d_y.to(dtype), d_z.to(dtype)
    product = tl.sum(scalar * d_scalar.to(tl.float32), axis=2) + tl.sum(edge * d_edge.to(tl.float32), axis=2)
    product += tl.sum((x + tx) * d_x.to(tl.float32) + (y + ty) * d_y.to(tl.float32), axis=2)
    product += tl.sum((z + tz) * d_z.to(tl.float32), axis=2)
    there = (n < length)[:, None] & (h < HEADS)[None, :]
    tl.store(delta + (b * HEADS + h[None, :]) * length + n[:, None], product, mask=there)
    out = d_values + ((b * HEADS + h[None, :, None]) * length + n[:, None, None]) * VALUE
    tl.store(out + c, d_scalar, mask=inside & (c < C))
    store_vectors(out + C + p, d_x, d_y, d_z, inside & (p < PV), PV)
    rest = C + 3 * PV + tl.arange(0, 8)[None, None, :]
    tl.store(out + rest, tl.zeros_like(row + rest).to(dtype), mask=inside & (rest < VALUE))
