"""Multiflow's protocol of self-consistency (Campbell et al. 2024, after Trippe et al. 2023).

Co-design 1 folds the sequence that was designed. PMPNN 8 gives the backbone eight new sequences, folds each, and counts
the one that comes nearest. A design is designable where that is within 2 angstrom of backbone RMSD.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.chem import atoms
from app.chem.residues import to_sequence
from app.evaluation.refold.batches import Failed, folded, redesigned
from app.evaluation.refold.columns import CODESIGN, COLUMNS, LIKELIHOOD, REDESIGN, skipped
from app.evaluation.refold.compare import backbone_rmsd, likeness
from app.evaluation.refold.plugin import Backbone, Chains, Folded, Redesign, chosen
from app.evaluation.refold.settings import RefoldSettings
from app.evaluation.refold.store import Store
from app.geometry.backbone import to_atom37
from app.geometry.frames import frames_from_backbone
from app.types import Protein

_BACKBONE = [atoms.N, atoms.CA, atoms.C]

Folds = Mapping[Chains, Folded | Failed]


@dataclass(frozen=True)
class _Design:
    """A design as it is refolded."""

    backbone: Backbone
    chain_ends: tuple[int, ...]  # residues before the first chain, the second, ..., and in all

    @property
    def atoms(self) -> Tensor:
        """N, CA and C, [N, 3, 3] angstrom."""
        return self.backbone.atoms[:, :3]

    def chains(self, sequence: str) -> Chains:
        return tuple(sequence[first:last] for first, last in pairwise(self.chain_ends))


def measured(
    designs: Mapping[str, Protein], settings: RefoldSettings, progress: Callable[[int, int], None] | None = None
) -> dict[str, dict[str, Any]]:
    """As `app.evaluation.refold.refold` says."""
    plugins, store = chosen(settings), Store(settings.cache)
    given, rows = {}, {}
    for name, protein in designs.items():  # once: it may be read from its file each time
        if settings.longest is not None and len(protein) > settings.longest:
            rows[name] = skipped(COLUMNS, f"{len(protein)} residues, over {settings.longest}")
        else:
            given[name] = _design(protein, _seed(settings.seed, name))
    backbones = {name: one.backbone for name, one in given.items()}
    redesigns = redesigned(backbones, plugins.inverse, settings.sequences, settings.temperature, store)
    own = {name: _own(one) for name, one in given.items()}
    new = {name: _new(one, redesigns[name]) for name, one in given.items()}
    every = [*own.values(), *(one for some in new.values() for one in some)]
    folds = folded([one for one in every if not isinstance(one, Failed)], plugins.folder, store, progress)
    for name, one in given.items():
        rows[name] = (
            _codesign(own[name], folds, one.atoms, settings.designable)
            | _best(new[name], folds, one.atoms, settings.designable)
            | _likelihood(redesigns[name])
        )
    return {name: rows[name] for name in designs}


def _design(protein: Protein, seed: int) -> _Design:
    """Oxygens that a file lacks are placed by the geometry of the residue."""
    coordinates = torch.from_numpy(protein.atom37[:, [*_BACKBONE, atoms.O]]).float()
    ideal = to_atom37(frames_from_backbone(*coordinates[:, :3].unbind(1)))[:, atoms.O]
    there = torch.from_numpy(protein.atom_mask[:, atoms.O])
    coordinates[:, 3] = torch.where(there[:, None], coordinates[:, 3], ideal)
    chains = protein.chain_idx
    ends = [0, *(np.flatnonzero(np.diff(chains)) + 1).tolist(), len(protein)]
    backbone = Backbone(
        atoms=coordinates,
        numbers=torch.from_numpy(np.asarray(protein.res_idx, dtype=np.int64)),
        chains=torch.from_numpy(np.asarray(chains, dtype=np.int64)),
        sequence=to_sequence(protein.aatype),
        seed=seed,
    )
    return _Design(backbone, tuple(ends))


def _seed(seed: int, name: str) -> int:
    """A design's own, whatever is refolded with it. Under 2^48."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()[:6], "big")


def _own(design: _Design) -> Chains | Failed:
    """The sequence that was designed."""
    sequence = design.backbone.sequence
    if unknown := sequence.count("X"):
        return Failed("it has no sequence" if unknown == len(sequence) else f"{unknown} of its residues are X")
    return design.chains(sequence)


def _new(design: _Design, made: Redesign | Failed) -> list[Chains | Failed]:
    """Sequences by inverse folding."""
    return [made] if isinstance(made, Failed) else [design.chains(sequence) for sequence in made.sequences]


def _codesign(own: Chains | Failed, folds: Folds, design: Tensor, limit: float) -> dict[str, Any]:
    fold = own if isinstance(own, Failed) else folds[own]
    if isinstance(fold, Failed):
        return skipped(CODESIGN, fold.reason)
    rmsd = backbone_rmsd(fold.backbone, design)
    return dict(zip(CODESIGN, (rmsd, *likeness(fold, design), rmsd <= limit), strict=True))


def _best(new: Sequence[Chains | Failed], folds: Folds, design: Tensor, limit: float) -> dict[str, Any]:
    """Where one of the sequences could not be folded there is no best: none is judged by fewer than others are."""
    found = [one if isinstance(one, Failed) else folds[one] for one in new]
    if failed := [one for one in found if isinstance(one, Failed)]:
        return skipped(REDESIGN, failed[0].reason)
    rmsds = np.array([backbone_rmsd(one.backbone, design) for one in found])
    best = int(rmsds.argmin())
    rmsd, share = float(rmsds[best]), float((rmsds <= limit).mean())
    told = (rmsd, *likeness(found[best], design), share, "/".join(new[best]), rmsd <= limit)
    return dict(zip(REDESIGN, told, strict=True))


def _likelihood(made: Redesign | Failed) -> dict[str, Any]:
    if isinstance(made, Failed):
        return skipped(LIKELIHOOD, made.reason)
    return skipped(LIKELIHOOD, "it has no sequence") if made.nll is None else {LIKELIHOOD[0]: made.nll}
