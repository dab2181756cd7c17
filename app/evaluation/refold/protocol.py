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
from app.evaluation.refold.columns import CODESIGN, LIKELIHOOD, REDESIGN, skipped
from app.evaluation.refold.compare import backbone_rmsd, likeness
from app.evaluation.refold.plugin import Backbone, Chains, Folded, Redesign, chosen
from app.evaluation.refold.settings import RefoldSettings
from app.evaluation.refold.store import Store
from app.geometry.backbone import to_atom37
from app.geometry.frames import frames_from_backbone
from app.types import Protein

_BACKBONE = [atoms.N, atoms.CA, atoms.C]


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
    longest = settings.longest or max((len(one) for one in designs.values()), default=0)
    given = {name: _design(one, _seed(settings.seed, name)) for name, one in designs.items() if len(one) <= longest}
    backbones = {name: one.backbone for name, one in given.items()}
    redesigns = redesigned(backbones, plugins.inverse, settings.sequences, settings.temperature, store)
    wanted: dict[str, tuple[Chains | Failed, list[Chains] | Failed]] = {
        name: (_own(one), _redesigns(one, redesigns[name])) for name, one in given.items()
    }
    every = [one for own, others in wanted.values() for one in (own, *(others if isinstance(others, list) else ()))]
    folds = folded([one for one in every if not isinstance(one, Failed)], plugins.folder, store, progress)
    rows = {}
    for name, protein in designs.items():
        if name not in given:
            rows[name] = skipped(CODESIGN + REDESIGN + LIKELIHOOD, f"{len(protein)} residues, over {longest}")
            continue
        own, others = wanted[name]
        rows[name] = (
            _codesign(own if isinstance(own, Failed) else folds[own], given[name].atoms, settings)
            | _best(others if isinstance(others, Failed) else others, folds, given[name].atoms, settings)
            | _likelihood(redesigns[name])
        )
    return rows


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
    sequence = design.backbone.sequence
    if unknown := sequence.count("X"):
        return Failed("it has no sequence" if unknown == len(sequence) else f"{unknown} of its residues are X")
    return design.chains(sequence)


def _redesigns(design: _Design, made: Redesign | Failed) -> list[Chains] | Failed:
    return made if isinstance(made, Failed) else [design.chains(sequence) for sequence in made.sequences]


def _codesign(fold: Folded | Failed, design: Tensor, settings: RefoldSettings) -> dict[str, Any]:
    if isinstance(fold, Failed):
        return skipped(CODESIGN, fold.reason)
    rmsd = backbone_rmsd(fold.backbone, design)
    return dict(zip(CODESIGN, (rmsd, *likeness(fold, design), rmsd <= settings.designable), strict=True))


def _best(
    sequences: Sequence[Chains] | Failed,
    folds: Mapping[Chains, Folded | Failed],
    design: Tensor,
    settings: RefoldSettings,
) -> dict[str, Any]:
    """Where one of the sequences could not be folded there is no best: a design is not judged by fewer than others."""
    failed = (
        [sequences] if isinstance(sequences, Failed) else [f for s in sequences if isinstance(f := folds[s], Failed)]
    )
    if failed:
        return skipped(REDESIGN, failed[0].reason)
    rmsds = [backbone_rmsd(folds[one].backbone, design) for one in sequences]
    best = int(np.argmin(rmsds))
    share = float(np.mean([rmsd <= settings.designable for rmsd in rmsds]))
    told = (
        rmsds[best],
        *likeness(folds[sequences[best]], design),
        share,
        "/".join(sequences[best]),
        rmsds[best] <= settings.designable,
    )
    return dict(zip(REDESIGN, told, strict=True))


def _likelihood(made: Redesign | Failed) -> dict[str, Any]:
    if isinstance(made, Failed):
        return skipped(LIKELIHOOD, made.reason)
    return skipped(LIKELIHOOD, "it has no sequence") if made.nll is None else {LIKELIHOOD[0]: made.nll}
