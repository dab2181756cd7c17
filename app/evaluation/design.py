"""What can be said of one design without knowing what it should be."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.chem import atoms
from app.chem.backbone import CA_CA_TRANS
from app.chem.residues import AATYPES
from app.evaluation import bonds, ramachandran
from app.evaluation.chain import adjacent, ca_ca_validity, linked
from app.evaluation.clashes import clashes
from app.evaluation.columns import Value, number
from app.evaluation.compactness import compactness, radius_of_gyration
from app.evaluation.composition import distance_to_natural, shares
from app.evaluation.handedness import d_residues, helical_turns
from app.evaluation.secondary_structure import HELIX, STRAND, contents, elements, secondary_structure
from app.geometry.internal import torsions
from app.types import Protein

VERSION = 1
"""Of all that is measured here; to be raised with any change of a number, so that none is taken from an old cache."""

PLANAR = 30.0
"""Degrees that omega may be off 180 (trans) or 0 (cis), beyond which a peptide bond is twisted, as in MolProbity."""

_BACKBONE = [atoms.N, atoms.CA, atoms.C]


class _Parts(NamedTuple):
    """A protein of N residues as the measures take it."""

    atom37: Tensor  # [N, 37, 3] angstrom
    atom_mask: Tensor  # [N, 37] bool
    aatypes: Tensor  # [N]
    chain_idx: Tensor  # [N]
    bonded: Tensor  # [N] bool, the next residue is bonded to this one
    joined: Tensor  # [N] bool, it is or, by number, should be
    follows: Tensor  # [N] bool, it should be, by number

    @property
    def backbone(self) -> Tensor:
        """N, CA, C: [N, 3, 3] angstrom."""
        return self.atom37[:, _BACKBONE]

    @property
    def ca(self) -> Tensor:
        return self.atom37[:, atoms.CA]


def measures(protein: Protein) -> dict[str, Value]:
    """By the columns of `app.evaluation.columns.DESIGN` a number or, where there is nothing to judge, why not."""
    atom37, chain_idx = torch.from_numpy(protein.atom37).float(), torch.from_numpy(protein.chain_idx)
    bonded = linked(atom37[:, _BACKBONE], chain_idx)
    follows = adjacent(chain_idx, torch.from_numpy(protein.res_idx))
    parts = _Parts(
        atom37,
        torch.from_numpy(protein.atom_mask),
        torch.from_numpy(protein.aatype),
        chain_idx,
        bonded,
        bonded | follows,
        follows,
    )
    return _bonds(parts) | _chain(parts) | _hands(parts) | _torsions(parts) | _shape(parts) | _composition(parts)


def _bonds(parts: _Parts) -> dict[str, Value]:
    off = bonds.deviations(parts.backbone, parts.joined, torch.ones(len(parts.atom37)))
    lengths = {name: off[name] * standard.deviation for name, standard in bonds.LENGTHS.items()}
    angles = {name: torch.rad2deg(off[name] * standard.deviation) for name, standard in bonds.ANGLES.items()}
    found = {}
    for kind, own in (("bond", lengths), ("angle", angles)):
        found[f"{kind}_outliers"] = number(1 - bonds.share_within(*(off[name] for name in own)), "no residue")
        found[f"{kind}_deviation"] = number(torch.cat(list(own.values())).abs().nanmean(), "no residue")
    return found


def _chain(parts: _Parts) -> dict[str, Value]:
    alone = "no residue has a next one"
    steps = (parts.ca[1:] - parts.ca[:-1]).norm(dim=-1)[parts.joined[:-1]]
    ends = parts.chain_idx[1:] == parts.chain_idx[:-1]
    return {
        "ca_ca_valid": number(ca_ca_validity(parts.ca, parts.joined), alone),
        "ca_ca_deviation": number((steps - CA_CA_TRANS).abs().mean(), alone),
        "clashes": number(clashes(parts.atom37, torch.ones(len(parts.ca)), parts.chain_idx), "no residue"),
        "chain_breaks": int((parts.follows & ~parts.bonded).sum()),
        "gaps": int((ends & ~parts.joined[:-1]).sum()),
    }


def _hands(parts: _Parts) -> dict[str, Value]:
    with_cb = int(parts.atom_mask[:, atoms.CB].sum())
    wrong = int(d_residues(parts.atom37, parts.atom_mask).sum())
    right, left = helical_turns(parts.ca.double().numpy(), parts.bonded.numpy())
    return {
        "d_residues": number(wrong / with_cb if with_cb else np.nan, "no CB"),
        "left_handed_helix": number(left / (left + right) if left + right else np.nan, "no helical turn"),
    }


def _torsions(parts: _Parts) -> dict[str, Value]:
    phi, psi, omega = torsions(parts.backbone.double().numpy())
    bonded = parts.bonded.numpy()
    phi, psi, omega = phi[np.roll(bonded, 1) & bonded], psi[np.roll(bonded, 1) & bonded], np.degrees(omega[bonded])
    whole = parts.aatypes.numpy()[np.roll(bonded, 1) & bonded]
    outliers = ramachandran.outside(phi, psi, whole)
    cis = np.abs(omega) <= PLANAR
    twisted = ~cis & (np.abs(omega) < 180 - PLANAR)
    none = "no residue between two bonded ones", "no peptide bond"
    return {
        "ramachandran_outliers": number(outliers.mean() if len(outliers) else np.nan, none[0]),
        "cis_peptides": number(cis.mean() if len(cis) else np.nan, none[1]),
        "twisted_peptides": number(twisted.mean() if len(twisted) else np.nan, none[1]),
    }


def _shape(parts: _Parts) -> dict[str, Value]:
    ca, chains = parts.ca.double().numpy(), parts.chain_idx.numpy()
    states = secondary_structure(parts.backbone, parts.chain_idx, parts.aatypes)
    per_chain = [elements("".join(np.array(list(states))[chains == chain])) for chain in dict.fromkeys(chains.tolist())]
    order = "".join(per_chain)
    content = contents(states)
    return {
        "radius_of_gyration": number(radius_of_gyration(ca), "no residue"),
        "compactness": number(compactness(ca, chains), "no residue"),
        **{name: number(share, "no residue") for name, share in content.items()},
        "coil": number(1 - sum(content.values()), "no residue"),
        "helices": order.count(HELIX),
        "strands": order.count(STRAND),
        "topology": "/".join(per_chain),
    }


def _composition(parts: _Parts) -> dict[str, Value]:
    composition, none = shares(parts.aatypes.numpy()), "no sequence"
    known = not np.isnan(composition).any()
    return {
        "composition_divergence": number(distance_to_natural(composition) if known else np.nan, none),
        "most_common_share": number(composition.max(), none),
        **{f"fraction_{letter}": number(share, none) for letter, share in zip(AATYPES, composition, strict=True)},
    }
