"""Points and frames in the fused kernels: tiles of x, of y and of z, [residue, head, point]."""

import triton
import triton.language as tl


@triton.jit
def mean_of_present(trans, mask, length, BLOCK: tl.constexpr):
    """x, y, z of the mean translation of one example's present residues; 0 where there are none."""
    x, y, z = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    count = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, length, BLOCK):
        n = first + tl.arange(0, BLOCK)
        present = tl.load(mask + n, mask=n < length, other=0.0)
        x += present * tl.load(trans + 3 * n, mask=n < length, other=0.0)
        y += present * tl.load(trans + 3 * n + 1, mask=n < length, other=0.0)
        z += present * tl.load(trans + 3 * n + 2, mask=n < length, other=0.0)
        count += present
    total = tl.maximum(tl.sum(count), 1.0)
    return tl.sum(x) / total, tl.sum(y) / total, tl.sum(z) / total


@triton.jit
def rotated(rotmats, there, x, y, z, INVERSE: tl.constexpr):
    """Rotations, or their inverses, of vectors; `rotmats` points to the first entries, `there` says which exist."""
    ROW: tl.constexpr = 1 if INVERSE else 3
    COLUMN: tl.constexpr = 3 if INVERSE else 1
    xx, xy = tl.load(rotmats, mask=there, other=0.0), tl.load(rotmats + COLUMN, mask=there, other=0.0)
    xz, yx = tl.load(rotmats + 2 * COLUMN, mask=there, other=0.0), tl.load(rotmats + ROW, mask=there, other=0.0)
    yy = tl.load(rotmats + ROW + COLUMN, mask=there, other=0.0)
    yz = tl.load(rotmats + ROW + 2 * COLUMN, mask=there, other=0.0)
    zx = tl.load(rotmats + 2 * ROW, mask=there, other=0.0)
    zy = tl.load(rotmats + 2 * ROW + COLUMN, mask=there, other=0.0)
    zz = tl.load(rotmats + 2 * ROW + 2 * COLUMN, mask=there, other=0.0)
    return xx * x + xy * y + xz * z, yx * x + yy * y + yz * z, zx * x + zy * y + zz * z


@triton.jit
def vectors(pointer, there, STEP: tl.constexpr):
    """x, y and z, `STEP` apart."""
    x = tl.load(pointer, mask=there, other=0.0).to(tl.float32)
    y = tl.load(pointer + STEP, mask=there, other=0.0).to(tl.float32)
    z = tl.load(pointer + 2 * STEP, mask=there, other=0.0).to(tl.float32)
    return x, y, z


@triton.jit
def store_vectors(pointer, x, y, z, there, STEP: tl.constexpr):
    tl.store(pointer, x, mask=there)
    tl.store(pointer + STEP, y, mask=there)
    tl.store(pointer + 2 * STEP, z, mask=there)


@triton.jit
def of_residues(x):
    """Sums over heads and points."""
    return tl.sum(tl.sum(x, axis=2), axis=1)


@triton.jit
def outer_products(ux, uy, uz, vx, vy, vz):
    """The nine entries of u v^T, summed."""
    return (
        of_residues(ux * vx), of_residues(ux * vy), of_residues(ux * vz),
        of_residues(uy * vx), of_residues(uy * vy), of_residues(uy * vz),
        of_residues(uz * vx), of_residues(uz * vy), of_residues(uz * vz),
    )  # fmt: skip
