"""From a blueprint to a chain: find torsions, within their basins, that put every element at its place.

Bond lengths and angles stay ideal throughout, since only phi and psi move. The chain grows by one loop and one element
at a time, each loop the best of many random ones; after each, all torsions so far are refined together on a sum of
squared restraints, as in structure calculation in torsion-angle space (Guentert et al. 1997, J. Mol. Biol. 273:283).

Torsions are rounded after every step. Differences of the last bit between machines are wiped out before they can grow,
so the same chains come out everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from app.chem import atoms as slot
from app.data.demo_fold import BASINS, FREE, LOOP, Blueprint
from app.data.demo_refinement import DECIMALS, Refinement, superposition
from app.geometry import internal

HALF_WIDTH = {"H": 8.0, "E": 30.0}
LOOP_HALF_WIDTH = 25.0
"""How far phi and psi may move from the centre of their basin, degrees."""

CANDIDATES, SHORTLIST = 1500, 40
"""Loops tried of every length, and how many of the best are looked at for crowding."""

CROWDED = 5.0
"""CA atoms nearer than this count against a loop, angstrom."""

TRIES, MISPLACED = 4, 1.2
"""How often a loop is tried before the chain is given up, and how far off the elements may be (rms, angstrom)."""


@dataclass
class Chain:
    """A chain in torsion space, growing: what a blueprint becomes."""

    letters: np.ndarray  # [N] conformations, keys of BASINS
    centres: np.ndarray  # [2, N] phi, psi of the basins, radian
    phi_psi: np.ndarray  # [2, N] radian
    omega: np.ndarray  # [N] radian
    starts: list[int]  # first residue of every element so far

    def __len__(self) -> int:
        return len(self.omega)

    @property
    def half_widths(self) -> np.ndarray:
        """[N] how far phi and psi may be from `centres`, radian."""
        return np.radians([HALF_WIDTH.get(letter, LOOP_HALF_WIDTH) for letter in self.letters])

    def atoms(self) -> np.ndarray:
        """[N, 5, 3] angstrom: N, CA, C, CB, O."""
        return internal.backbone(*self.phi_psi, self.omega)

    def elements(self, blueprint: Blueprint) -> np.ndarray:
        """Indices of the residues in helices and strands, in order."""
        lengths = [positions.shape[1] for positions in blueprint.targets]
        return np.concatenate([np.arange(start, start + n) for start, n in zip(self.starts, lengths, strict=False)])

    def joined(self, other: Chain) -> Chain:
        """This chain and then the other."""
        starts = self.starts + [len(self) + start for start in other.starts]
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("letters", "centres", "phi_psi", "omega"))
        return Chain(*(np.concatenate(pair, axis=-1) for pair in pairs), starts)


def assemble(rng: np.random.Generator, blueprint: Blueprint) -> Chain | None:
    """Build a chain after the blueprint, or None where no loop was found that puts every element at its place."""
    blueprint = replace(blueprint, targets=list(blueprint.targets))
    *loops, (head,), (tail,) = blueprint.loops
    chain = _stretch(rng, head).joined(_element(rng, blueprint, 0))
    for k, alternatives in enumerate(loops, start=1):
        for _ in range(TRIES):
            grown, position = _grow(rng, blueprint, chain, k, alternatives)
            trial = replace(blueprint, targets=[*blueprint.targets[:k], position, *blueprint.targets[k + 1 :]])
            refinement = Refinement(trial, grown)
            refinement.solve(steps=12, place=0.3, spring=3.0, repel=1.0)
            if refinement.misplaced() < MISPLACED:
                break
        else:
            return None
        chain, blueprint = grown, trial
    chain = chain.joined(_stretch(rng, tail))
    Refinement(blueprint, chain).solve(steps=30, place=0.02, spring=3.0, repel=10.0)
    return chain


def _element(rng, blueprint, k) -> Chain:
    chain = _stretch(rng, blueprint.kinds[k] * blueprint.targets[k].shape[1])
    chain.starts.append(0)
    return chain


def _stretch(rng, conformations: str, copies: tuple[int, ...] = ()) -> Chain:
    """Residues (or `copies` of them, each drawn anew) with those conformations, torsions drawn around the basins."""
    letters = np.broadcast_to(np.array(list(conformations), dtype="<U1"), (*copies, len(conformations)))
    drawn = np.array(list(LOOP))[(rng.random(letters.shape) * len(LOOP)).astype(int)]
    letters = np.where(letters == FREE, drawn, letters)
    known, index = np.unique(letters, return_inverse=True)
    index = index.reshape(letters.shape)
    centres = np.moveaxis(np.radians([BASINS[letter] for letter in known])[index], -1, -2)
    spread = np.radians([0.3 * HALF_WIDTH[c] if c in HALF_WIDTH else LOOP_HALF_WIDTH for c in known])[index]
    phi_psi = centres + spread[..., None, :] * (2.0 * rng.random(centres.shape) - 1.0)
    wobble = rng.random((4, len(conformations))).sum(0) - 2.0
    omega = np.where(np.array(list(conformations)) == "H", 179.0, 180.0) + 2.0 * wobble
    return Chain(letters, centres, np.round(phi_psi, DECIMALS), np.round(np.radians(omega), DECIMALS), [])


def _grow(rng, blueprint, chain, k, alternatives) -> tuple[Chain, np.ndarray]:
    """The chain with a loop and element k added, and the position [1, L, 5, 3] of the element that it comes nearest to.

    Of many draws of the loop the one that brings the element nearest to any of its positions, clear of the rest.
    """
    built = chain.atoms()
    rotation, shift = superposition(
        built[chain.elements(blueprint)], np.concatenate([positions[0] for positions in blueprint.targets[:k]])
    )
    built = built @ rotation.T + shift
    element = _element(rng, blueprint, k)
    options = [_bridge(rng, chain, built, element, loop, blueprint.targets[k]) for loop in alternatives]
    _, loop, position = min(options, key=lambda option: option[0])
    return chain.joined(loop).joined(element), position


def _bridge(rng, chain, built, element, conformations, positions) -> tuple[float, Chain, np.ndarray]:
    """The best of `CANDIDATES` loops from the built part [N, 5, 3] to the element: its score, itself, the position."""
    loops = _stretch(rng, conformations, copies=(CANDIDATES,))
    before, after = chain.phi_psi[:, -1:], element.phi_psi[:, :1]
    ends = [np.broadcast_to(residue, (CANDIDATES, 2, 1)) for residue in (before, after)]
    phi, psi = np.moveaxis(np.concatenate([ends[0], loops.phi_psi, ends[1]], axis=-1), 1, 0)
    omega = np.concatenate([chain.omega[-1:], loops.omega, element.omega[:1]])
    frames, origins = internal.chain_frames(*internal.frame_steps(phi, psi, np.broadcast_to(omega, phi.shape)))
    root = internal.residue_frames(*built[-1, :3])
    frames, origins = root @ frames, origins @ root.T + built[-1, slot.CA]
    atoms = element.atoms()
    grown = (atoms.reshape(-1, 3) @ np.swapaxes(frames[:, -1], -1, -2) + origins[:, -1, None]).reshape(CANDIDATES, -1)

    wanted = positions.reshape(len(positions), -1)
    misfit = ((grown**2).sum(-1)[:, None] + (wanted**2).sum(-1) - 2 * grown @ wanted.T) / (atoms.size / 3)
    shortlist = np.argsort(misfit.min(1), kind="stable")[:SHORTLIST]
    added = np.concatenate([origins[shortlist, 1:-1], grown[shortlist].reshape(SHORTLIST, -1, 5, 3)[:, :, slot.CA]], 1)
    distance = np.linalg.norm(added[:, :, None] - built[None, None, :, slot.CA], axis=-1)
    distance[:, :2, -2:] = CROWDED  # neighbours along the chain
    score = misfit[shortlist].min(1) + (np.maximum(CROWDED - distance, 0.0) ** 2).sum((1, 2))
    best = shortlist[np.argmin(score)]
    loop = Chain(loops.letters[best], loops.centres[best], loops.phi_psi[best], loops.omega, [])
    return float(score.min()), loop, positions[np.argmin(misfit[best])][None]
