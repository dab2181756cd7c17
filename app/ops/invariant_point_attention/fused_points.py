"""Kernels before the attention: points go to global space and join the scalars of their head.

A row of a head is its scalars, then all x, all y and all z of its points, then zeros up to a multiple of 8. Coordinates
are taken from the mean of the present residues: far from it their squares have no digits left. Tiles: [residue, head,
channel or point].
"""

import triton
import triton.language as tl

from app.ops.invariant_point_attention.fused_geometry import (
    mean_of_present,
    of_residues,
    outer_products,
    rotated,
    store_vectors,
    vectors,
)

MASKED = tl.constexpr(-1e5)
"""Added to the logits of absent keys, as in `reference.py`."""


@triton.jit
def place(
    scalars, points, out, row, rotmats, inside, x0, y0, z0, scalar_factor, point_factor,
    scalar_at, point_at,
    C: tl.constexpr, C_PAD: tl.constexpr, P: tl.constexpr, P_PAD: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Writes rows; returns half the squared lengths of the points as written, [residue, head]."""
    c, p = tl.arange(0, C_PAD)[None, None, :], tl.arange(0, P_PAD)[None, None, :]
    scalar = tl.load(scalars + scalar_at + c, mask=inside & (c < C), other=0.0).to(tl.float32) * scalar_factor
    tl.store(out + row * WIDTH + c, scalar.to(out.dtype.element_ty), mask=inside & (c < C))
    x, y, z = vectors(points + point_at + 3 * p, inside & (p < P), 1)
    x, y, z = rotated(rotmats, inside, x, y, z, False)
    x, y, z = (x + x0).to(out.dtype.element_ty), (y + y0).to(out.dtype.element_ty), (z + z0).to(out.dtype.element_ty)
    x, y, z = x.to(tl.float32), y.to(tl.float32), z.to(tl.float32)
    there = out + row * WIDTH + C + p
    store_vectors(there, x * point_factor, y * point_factor, z * point_factor, inside & (p < P), P)
    rest = C + 3 * P + tl.arange(0, 8)[None, None, :]
    tl.store(out + row * WIDTH + rest, tl.zeros_like(row + rest).to(out.dtype.element_ty), mask=inside & (rest < WIDTH))
    return 0.5 * tl.sum(tl.where(p < P, x * x + y * y + z * z, 0.0), axis=2)


@triton.jit(do_not_specialize=["length"])
def widen(
    q, k, v, q_points, k_points, v_points, point_weight, rotmats, trans, mask,
    queries, keys, values, key_bias, centre, length,
    q_b, q_n, q_h, k_b, k_n, k_h, v_b, v_n, v_h, qp_b, qp_n, qp_h, kp_b, kp_n, kp_h, vp_b, vp_n, vp_h,
    scalar_scale, point_scale,
    HEADS: tl.constexpr, H_PAD: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr,
    P: tl.constexpr, P_PAD: tl.constexpr, PV: tl.constexpr, PV_PAD: tl.constexpr,
    WIDTH: tl.constexpr, VALUE: tl.constexpr, RESIDUES: tl.constexpr,
):  # fmt: skip
    """Queries, keys, values and the keys' bias, [B, H, N, ...], and the centre, [B, 3]."""
    b = tl.program_id(1)
    n, h = tl.program_id(0) * RESIDUES + tl.arange(0, RESIDUES), tl.arange(0, H_PAD)
    rotmats, trans, mask = rotmats + 9 * b * length, trans + 3 * b * length, mask + b * length
    x0, y0, z0 = mean_of_present(trans, mask, length, 128)
    if tl.program_id(0) == 0:
        tl.store(centre + 3 * b, x0)
        tl.store(centre + 3 * b + 1, y0)
        tl.store(centre + 3 * b + 2, z0)
    there = (n < length)[:, None, None]
    tx, ty, tz = vectors(trans + 3 * n[:, None, None], there, 1)
    tx, ty, tz = tx - x0, ty - y0, tz - z0
    inside = there & (h < HEADS)[None, :, None]
    row = (b * HEADS + h[None, :, None]) * length + n[:, None, None]
    rotmats += 9 * n[:, None, None]
    weight = point_scale * tl.load(point_weight + h, mask=h < HEADS, other=0.0).to(tl.float32)
    at_n, at_h = n[:, None, None], h[None, :, None]
    place(
        q, q_points, queries, row, rotmats, inside, tx, ty, tz, scalar_scale, weight[None, :, None],
        b * q_b + at_n * q_n + at_h * q_h, b * qp_b + at_n * qp_n + at_h * qp_h,
        C, C_PAD, P, P_PAD, WIDTH,
    )  # fmt: skip
    half = place(
        k, k_points, keys, row, rotmats, inside, tx, ty, tz, 1.0, 1.0,
        b * k_b + at_n * k_n + at_h * k_h, b * kp_b + at_n * kp_n + at_h * kp_h,
        C, C_PAD, P, P_PAD, WIDTH,
    )  # fmt: skip
    place(
        v, v_points, values, row, rotmats, inside, tx, ty, tz, 1.0, 1.0,
        b * v_b + at_n * v_n + at_h * v_h, b * vp_b + at_n * vp_n + at_h * vp_h,
        C, C_PAD, PV, PV_PAD, VALUE,
    )  # fmt: skip
    present = tl.load(mask + n, mask=n < length, other=0.0)
    bias = MASKED * (1.0 - present)[:, None] - weight[None, :] * half
    tl.store(
        key_bias + (b * HEADS + h[None, :]) * length + n[:, None],
        bias,
        mask=(n < length)[:, None] & (h < HEADS)[None, :],
    )


@triton.jit
def sum_of_parts(
    parts, part_size, splits, row, inside,
    C: tl.constexpr, C_PAD: tl.constexpr, P: tl.constexpr, P_PAD: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradients of rows: of the scalars, and of the points' x, y and z."""
    c, p = tl.arange(0, C_PAD)[None, None, :], tl.arange(0, P_PAD)[None, None, :]
    scalar = tl.load(parts + row * WIDTH + c, mask=inside & (c < C), other=0.0)
    x, y, z = vectors(parts + row * WIDTH + C + p, inside & (p < P), P)
    for split in range(1, splits):
        part = parts + split * part_size + row * WIDTH
        scalar += tl.load(part + c, mask=inside & (c < C), other=0.0)
        more_x, more_y, more_z = vectors(part + C + p, inside & (p < P), P)
        x, y, z = x + more_x, y + more_y, z + more_z
    return scalar, x, y, z


@triton.jit(do_not_specialize=["length", "batch", "query_splits", "key_splits"])
def widen_backward(
    part_d_queries, part_d_keys, part_d_values, part_d_key_bias,
    q_points, k_points, v_points, point_weight, rotmats, trans, centre,
    d_q, d_k, d_v, d_q_points, d_k_points, d_v_points, d_rotmats, d_trans, part_d_weight,
    length, batch, query_splits, key_splits,
    qp_b, qp_n, qp_h, kp_b, kp_n, kp_h, vp_b, vp_n, vp_h, scalar_scale, point_scale,
    HEADS: tl.constexpr, H_PAD: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr,
    P: tl.constexpr, P_PAD: tl.constexpr, PV: tl.constexpr, PV_PAD: tl.constexpr,
    WIDTH: tl.constexpr, VALUE: tl.constexpr, RESIDUES: tl.constexpr,
):  # fmt: skip
    """Gradients of the operation's inputs from those of the rows; the frames' are added to what is there."""
    b = tl.program_id(1)
    n, h = tl.program_id(0) * RESIDUES + tl.arange(0, RESIDUES), tl.arange(0, H_PAD)
    c, p, pv = (
        tl.arange(0, C_PAD)[None, None, :],
        tl.arange(0, P_PAD)[None, None, :],
        tl.arange(0, PV_PAD)[None, None, :],
    )
    at_n, at_h = n[:, None, None], h[None, :, None]
    there = at_n < length
    inside = there & (at_h < HEADS)
    row, own = (b * HEADS + at_h) * length + at_n, (b * length + at_n) * HEADS + at_h
    rows = batch * HEADS * length
    rotmats += 9 * (b * length + at_n)
    tx, ty, tz = vectors(trans + 3 * (b * length + at_n), there, 1)
    tx, ty, tz = tx - tl.load(centre + 3 * b), ty - tl.load(centre + 3 * b + 1), tz - tl.load(centre + 3 * b + 2)
    weight = point_scale * tl.load(point_weight + at_h, mask=at_h < HEADS, other=0.0).to(tl.float32)

    d_scalar, d_x, d_y, d_z = sum_of_parts(
        part_d_queries, rows * WIDTH, query_splits, row, inside, C, C_PAD, P, P_PAD, WIDTH
    )
    tl.store(d_q + own * C + c, (scalar_scale * d_scalar).to(d_q.dtype.element_ty), mask=inside & (c < C))
    x, y, z = vectors(q_points + b * qp_b + at_n * qp_n + at_h * qp_h + 3 * p, inside & (p < P), 1)
    gx, gy, gz = rotated(rotmats, inside, x, y, z, False)
    d_weight = tl.sum((gx + tx) * d_x + (gy + ty) * d_y + (gz + tz) * d_z, axis=2)
    d_x, d_y, d_z = weight * d_x, weight * d_y, weight * d_z
    of_q = outer_products(d_x, d_y, d_z, x, y, z)
    sum_x, sum_y, sum_z = of_residues(d_x), of_residues(d_y), of_residues(d_z)
    d_x, d_y, d_z = rotated(rotmats, inside, d_x, d_y, d_z, True)
    store_vectors(d_q_points + (own * P + p) * 3, d_x, d_y, d_z, inside & (p < P), 1)

    d_scalar, d_x, d_y, d_z = sum_of_parts(
        part_d_keys, rows * WIDTH, key_splits, row, inside, C, C_PAD, P, P_PAD, WIDTH
    )
    tl.store(d_k + own * C + c, d_scalar.to(d_k.dtype.element_ty), mask=inside & (c < C))
    d_bias = tl.zeros_like(weight + tx)
    for split in range(key_splits):
        d_bias += tl.load(part_d_key_bias + split * rows + row, mask=inside, other=0.0)
    x, y, z = vectors(k_points + b * kp_b + at_n * kp_n + at_h * kp_h + 3 * p, inside & (p < P), 1)
    gx, gy, gz = rotated(rotmats, inside, x, y, z, False)
    gx, gy, gz = tl.where(p < P, gx + tx, 0.0), tl.where(p < P, gy + ty, 0.0), tl.where(p < P, gz + tz, 0.0)
    d_weight -= tl.sum(0.5 * d_bias * (gx * gx + gy * gy + gz * gz), axis=2)
    d_bias *= weight
    d_x, d_y, d_z = d_x - d_bias * gx, d_y - d_bias * gy, d_z - d_bias * gz
    of_k = outer_products(d_x, d_y, d_z, x, y, z)
    sum_x, sum_y, sum_z = sum_x + of_residues(d_x), sum_y + of_residues(d_y), sum_z + of_residues(d_z)
    d_x, d_y, d_z = rotated(rotmats, inside, d_x, d_y, d_z, True)
    store_vectors(d_k_points + (own * P + p) * 3, d_x, d_y, d_z, inside & (p < P), 1)

    d_scalar, d_x, d_y, d_z = sum_of_parts(
        part_d_values, rows * VALUE, key_splits, row, inside, C, C_PAD, PV, PV_PAD, VALUE
    )
    tl.store(d_v + own * C + c, d_scalar.to(d_v.dtype.element_ty), mask=inside & (c < C))
    x, y, z = vectors(v_points + b * vp_b + at_n * vp_n + at_h * vp_h + 3 * pv, inside & (pv < PV), 1)
    of_v = outer_products(d_x, d_y, d_z, x, y, z)
    sum_x, sum_y, sum_z = sum_x + of_residues(d_x), sum_y + of_residues(d_y), sum_z + of_residues(d_z)
    d_x, d_y, d_z = rotated(rotmats, inside, d_x, d_y, d_z, True)
    store_vectors(d_v_points + (own * PV + pv) * 3, d_x, d_y, d_z, inside & (pv < PV), 1)

    at = d_rotmats + 9 * (b * length + n)
    for entry in tl.static_range(9):
        more = tl.load(at + entry, mask=n < length, other=0.0)
        tl.store(at + entry, more + of_q[entry] + of_k[entry] + of_v[entry], mask=n < length)
    at = d_trans + 3 * (b * length + n)
    more_x, more_y, more_z = vectors(at, n < length, 1)
    store_vectors(at, more_x + sum_x, more_y + sum_y, more_z + sum_z, n < length, 1)
    program = b * tl.num_programs(0) + tl.program_id(0)
    tl.store(part_d_weight + program * HEADS + h, point_scale * tl.sum(d_weight, axis=0), mask=h < HEADS)
