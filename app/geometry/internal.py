"""Internal coordinates in numpy: dihedral angles, and backbones built from their torsion angles.

An atom is placed from the three before it (NeRF: Parsons et al. 2005, J. Comput. Chem. 26:1063). A chain is not placed
atom by atom: the step from one residue's frame to the next depends on three torsions only, so all steps are computed at
once and then chained by a parallel prefix product.
"""

from __future__ import annotations

import numpy as np

from app.chem import backbone_geometry as ideal


def dihedral(a, b, c, d) -> np.ndarray:
    """Dihedral angle a-b-c-d, radian in (-pi, pi], IUPAC sign. Points [..., 3] -> [...]."""
    axis = c - b
    normal_1, normal_2 = cross(b - a, axis), cross(axis, d - c)
    y = (cross(normal_1, normal_2) * axis).sum(-1) / np.linalg.norm(axis, axis=-1)
    return np.arctan2(y, (normal_1 * normal_2).sum(-1))


def place(a, b, c, length, angle, torsion) -> np.ndarray:
    """The point d with |c - d| = length, angle b-c-d and dihedral a-b-c-d = torsion (radian). Points [..., 3]."""
    length, angle, torsion = (np.asarray(value)[..., None] for value in (length, angle, torsion))
    bond = _unit(c - b)
    normal = _unit(cross(b - a, bond))
    in_plane = cross(normal, bond)
    return c + length * (
        -np.cos(angle) * bond + np.sin(angle) * (np.cos(torsion) * in_plane + np.sin(torsion) * normal)
    )


def backbone(phi, psi, omega) -> np.ndarray:
    """Backbone and CB atoms from torsions, with the bond lengths and angles of `app.chem.backbone_geometry`.

    phi, psi, omega: [..., N] radian; omega[i] turns the bond between residues i and i + 1. phi[0] and omega[-1] have no
    effect. Returns [..., N, 5, 3] float64, angstrom, atoms in atom37 order (N, CA, C, CB, O); the first residue's CA is
    at the origin, its C on the x axis and its N in the xy plane. CB is there for glycine too: leave it out if need be.
    The last residue's O is placed as if another residue followed (psi turns it).
    """
    phi, psi, omega = (np.asarray(torsion, dtype=np.float64) for torsion in (phi, psi, omega))
    rotations, origins = chain_frames(*frame_steps(phi, psi, omega))
    return np.einsum("...nij,...naj->...nai", rotations, local_atoms(psi)) + origins[..., None, :]


def local_atoms(psi) -> np.ndarray:
    """N, CA, C, CB, O [..., 5, 3] in the frame of their residue: CA at the origin, C on x, N in the xy plane, y > 0."""
    n, ca, c, _ = _IDEAL_RESIDUE
    oxygen = place(n, ca, c, ideal.C_O, ideal.CA_C_O, np.asarray(psi) + np.pi)
    rigid = np.broadcast_to(_IDEAL_RESIDUE, (*np.shape(psi), 4, 3))
    return np.concatenate([rigid, oxygen[..., None, :]], axis=-2)


def frame_steps(phi, psi, omega) -> tuple[np.ndarray, np.ndarray]:
    """Frame of each residue in the frame of the one before it: rotations [..., N, 3, 3] and origins [..., N, 3].

    The first is the identity. Arguments as in `backbone`.
    """
    n, ca, c, _ = _IDEAL_RESIDUE
    next_n = place(n, ca, c, ideal.C_N, ideal.CA_C_N, psi[..., :-1])
    next_ca = place(ca, c, next_n, ideal.N_CA, ideal.C_N_CA, omega[..., :-1])
    next_c = place(c, next_n, next_ca, ideal.CA_C, ideal.N_CA_C, phi[..., 1:])
    rotations = np.zeros((*phi.shape, 3, 3))
    rotations[..., 0, :, :] = np.eye(3)
    rotations[..., 1:, :, :] = residue_frames(next_n, next_ca, next_c)
    origins = np.zeros((*phi.shape, 3))
    origins[..., 1:, :] = next_ca
    return rotations, origins


def chain_frames(rotations: np.ndarray, origins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All frames in the first one's axes, from the steps between them: a prefix product in log2(N) rounds."""
    rotations, origins = rotations.copy(), origins.copy()
    reach = 1
    while reach < rotations.shape[-3]:
        before = rotations[..., :-reach, :, :]
        origins[..., reach:, :] = (before @ origins[..., reach:, :, None])[..., 0] + origins[..., :-reach, :]
        rotations[..., reach:, :, :] = before @ rotations[..., reach:, :, :]
        reach *= 2
    return rotations, origins


def residue_frames(n, ca, c) -> np.ndarray:
    """Right-handed axes of the residues as the columns of [..., 3, 3]: x along CA-C, y in the plane towards N."""
    x = _unit(c - ca)
    y = n - ca
    y = _unit(y - (y * x).sum(-1, keepdims=True) * x)
    return np.stack([x, y, cross(x, y)], axis=-1)


def torsions(atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """phi, psi, omega [..., N] of a backbone [..., N, 3+, 3] (N, CA, C first), radian; undefined ends are NaN."""
    n, ca, c = (atoms[..., k, :] for k in range(3))
    gap = np.full((*n.shape[:-2], 1), np.nan)
    phi = dihedral(c[..., :-1, :], n[..., 1:, :], ca[..., 1:, :], c[..., 1:, :])
    psi = dihedral(n[..., :-1, :], ca[..., :-1, :], c[..., :-1, :], n[..., 1:, :])
    omega = dihedral(ca[..., :-1, :], c[..., :-1, :], n[..., 1:, :], ca[..., 1:, :])
    return tuple(np.concatenate(pair, axis=-1) for pair in ((gap, phi), (psi, gap), (omega, gap)))


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product over the last axis, several times faster than numpy's on small arrays."""
    return a[..., _NEXT] * b[..., _LAST] - a[..., _LAST] * b[..., _NEXT]


_NEXT, _LAST = [1, 2, 0], [2, 0, 1]


def _unit(vector):
    return vector / np.sqrt((vector * vector).sum(-1, keepdims=True))


def _ideal_residue() -> np.ndarray:
    ca, c = np.zeros(3), np.array([ideal.CA_C, 0.0, 0.0])
    n = ideal.N_CA * np.array([np.cos(ideal.N_CA_C), np.sin(ideal.N_CA_C), 0.0])
    return np.stack([n, ca, c, place(n, c, ca, ideal.CA_CB, ideal.C_CA_CB, ideal.N_C_CA_CB)])


_IDEAL_RESIDUE = _ideal_residue()
"""N, CA, C, CB [4, 3] in the residue's frame."""
