"""Refinement of a demo chain in torsion space: least squares over restraints, bond geometry untouched.

Restraints: the place of every element, hydrogen bonds and CA-CA distances between strands, repulsion of atoms too near,
and a pull of every torsion to the centre of its basin. The derivatives by torsions are those of hinges: a torsion turns
all that lies behind its bond (Abe et al. 1984, Comput. Chem. 8:239).
"""

from __future__ import annotations

import numpy as np

from app.chem import atoms as slot
from app.geometry import internal

DECIMALS = 6
"""Torsions are rounded to this many decimals of a radian."""

SEPARATION = 3
"""Atoms of residues nearer in sequence than this are kept apart by the torsion basins alone."""

CONTACT = np.array(
    [  # N   CA   C    CB   O
        [3.5, 3.6, 3.4, 3.4, 2.7],
        [3.6, 3.9, 3.7, 3.7, 3.0],
        [3.4, 3.7, 3.6, 3.5, 3.1],
        [3.4, 3.7, 3.5, 3.7, 3.0],
        [2.7, 3.0, 3.1, 3.0, 2.9],
    ]
)
"""Distances below which two atoms repel, angstrom."""


class Refinement:
    """The restraints on a chain, as far as it has grown; `solve` moves its phi and psi."""

    def __init__(self, blueprint, chain):
        self.chain = chain
        self.target = np.concatenate([positions[0, :, slot.CA] for positions in blueprint.targets[: len(chain.starts)]])
        self.placed = 5 * chain.elements(blueprint) + slot.CA
        springs = [(a, b, d) for a, b, d in blueprint.springs if max(a[0], b[0]) < len(chain.starts)]
        ends = [[5 * (chain.starts[e] + i) + atom for e, i, atom in (a, b)] for a, b, _ in springs]
        self.springs = np.array(ends, dtype=int).reshape(-1, 2).T
        self.spring_lengths = np.array([distance for *_, distance in springs])
        residue, atom = np.divmod(np.arange(5 * len(chain)), 5)
        apart = residue[None, :] - residue[:, None] >= SEPARATION
        self.contact = np.where(apart, CONTACT[atom[:, None], atom[None, :]], 0.0)
        self.reach = np.where(apart, self.contact**2, -np.inf)
        hinge = np.arange(len(chain))
        behind_phi = (residue[:, None] > hinge) | ((residue[:, None] == hinge) & (atom[:, None] >= slot.C))
        behind_psi = (residue[:, None] > hinge) | ((residue[:, None] == hinge) & (atom[:, None] == slot.O))
        self.behind = np.concatenate([behind_phi, behind_psi], axis=1).astype(float)  # [5 N, 2 N]

    def solve(self, steps: int, place: float, spring: float, repel: float) -> None:
        """Levenberg-Marquardt with the given weights, within the basins, torsions rounded at every step."""
        weights = {"place": place, "spring": spring, "repel": repel}
        centres, phi_psi, half_widths = self.chain.centres, self.chain.phi_psi, self.chain.half_widths
        damping, (residual, jacobian) = 1.0, self._restraints(phi_psi, **weights)
        for _ in range(steps):
            normal = jacobian.T @ jacobian + damping * np.eye(jacobian.shape[1])
            step = np.linalg.solve(normal, -jacobian.T @ residual)[: phi_psi.size].reshape(2, -1)
            tried = np.clip(phi_psi + np.clip(step, -0.3, 0.3), centres - half_widths, centres + half_widths)
            tried = np.round(tried, DECIMALS)
            residual_there, jacobian_there = self._restraints(tried, **weights)
            if (residual_there**2).sum() < (residual**2).sum():
                phi_psi, residual, jacobian, damping = tried, residual_there, jacobian_there, damping / 3
            else:
                damping *= 4
        self.chain.phi_psi = phi_psi

    def misplaced(self) -> float:
        """Root mean square distance of the elements' CA from their targets, angstrom."""
        here = self.chain.atoms().reshape(-1, 3)[self.placed]
        rotation, shift = superposition(self.target, here)
        return float(np.sqrt(((here - self.target @ rotation.T - shift) ** 2).sum(-1).mean()))

    def _restraints(self, phi_psi, place, spring, repel) -> tuple[np.ndarray, np.ndarray]:
        """Residuals [M], and their derivatives [M, 2 N + 6] by phi, psi and a rigid motion of the whole chain."""
        chain = internal.backbone(*phi_psi, self.chain.omega)
        points = chain.reshape(-1, 3)
        axis, moment = _hinges(chain)
        parts = [
            self._distances(points, axis, moment, *self.springs, self.spring_lengths, spring),
            self._distances(points, axis, moment, *self._touching(points), repel),
            self._places(points, axis, moment, place),
            ((phi_psi - self.chain.centres).ravel(), np.eye(phi_psi.size)),
        ]
        jacobian = np.zeros((sum(len(residual) for residual, _ in parts), phi_psi.size + 6))
        row = 0
        for residual, slope in parts:
            jacobian[row : row + len(residual), : slope.shape[1]] = slope
            row += len(residual)
        return np.concatenate([residual for residual, _ in parts]), jacobian

    def _touching(self, points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Atom pairs nearer than they may be, and how near they may be."""
        square = (points**2).sum(-1)
        distance = square[:, None] + square[None, :] - 2 * points @ points.T
        i, j = np.divmod(np.flatnonzero(distance < self.reach), len(points))
        return i, j, self.contact[i, j]

    def _distances(self, points, axis, moment, i, j, length, weight):
        """Deviations of the distances i-j from `length`. By a torsion that moves one of the two, a distance changes as
        fast as that atom moves along the line between them."""
        between = points[j] - points[i]
        distance = np.sqrt((between**2).sum(-1))
        between /= distance[:, None]
        slope = internal.cross(points[j], between) @ axis.T - between @ moment.T
        slope *= self.behind[j] - self.behind[i]
        return np.sqrt(weight) * (distance - length), np.sqrt(weight) * slope

    def _places(self, points, axis, moment, weight):
        """Deviations of the elements' CA from their targets, after superposition."""
        here = points[self.placed]
        rotation, shift = superposition(self.target, here)
        by_torsion = (internal.cross(axis[None], here[:, None]) - moment[None]) * self.behind[self.placed][..., None]
        by_turn = internal.cross(np.eye(3)[None], here[:, None])
        by_shift = np.broadcast_to(np.eye(3), by_turn.shape)
        slope = np.concatenate([by_torsion, by_turn, by_shift], axis=1).transpose(0, 2, 1)
        misfit = here - self.target @ rotation.T - shift
        return np.sqrt(weight) * misfit.ravel(), np.sqrt(weight) * slope.reshape(misfit.size, -1)


def _hinges(chain) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors u along the bonds that phi and psi turn, and u x p for a point p on each: [2 N, 3] both. Turning a
    bond moves an atom at r at the rate u x r - u x p."""
    start = np.concatenate([chain[:, slot.N], chain[:, slot.CA]])
    end = np.concatenate([chain[:, slot.CA], chain[:, slot.C]])
    axis = (end - start) / np.linalg.norm(end - start, axis=-1, keepdims=True)
    return axis, internal.cross(axis, end)


def superposition(mobile: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation R and shift t that minimise |mobile R^T + t - target| over all points [..., 3] (Kabsch 1976)."""
    mobile, target = mobile.reshape(-1, 3), target.reshape(-1, 3)
    centre, target_centre = mobile.mean(0), target.mean(0)
    left, _, right = np.linalg.svd((target - target_centre).T @ (mobile - centre))
    rotation = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
    return rotation, target_centre - rotation @ centre
