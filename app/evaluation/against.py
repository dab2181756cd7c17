"""A design against the structure that it should be, or was made from."""

import biotite.structure as struc
import numpy as np
import torch
from biotite.sequence import ProteinSequence
from biotite.sequence.align import SubstitutionMatrix, align_optimal

from app.chem import atoms
from app.chem.residues import NUM_AATYPES, to_sequence
from app.errors import UserError
from app.evaluation.chain import sequence_recovery
from app.evaluation.columns import AGAINST, Value, number
from app.evaluation.tm_score import tm_score
from app.geometry.superpose import superpose
from app.types import Protein

VERSION = 1
"""Of all that is measured here; see `app.evaluation.design.VERSION`."""

SAME = 0.9
"""Share of the shorter sequence that has to be identical for two of different lengths to be one protein."""

_MATRIX = SubstitutionMatrix.std_protein_matrix()  # BLOSUM62
_GAPS = (-11, -1)
_BACKBONE = [atoms.N, atoms.CA, atoms.C]


def compared(design: Protein, reference: Protein, name: str) -> dict[str, Value]:
    """By `app.evaluation.columns.AGAINST`. name: of the reference.

    Raises UserError where their residues do not correspond.
    """
    own, other = corresponding(design, reference)
    recovery = sequence_recovery(
        torch.from_numpy(design.aatype[own]),
        torch.from_numpy(reference.aatype[other]),
        torch.from_numpy(reference.aatype[other] < NUM_AATYPES),
    )
    known = bool((design.aatype[own] < NUM_AATYPES).any())
    placed = np.full((len(reference), 3), np.nan, dtype=np.float32)  # the design's CA, a row a residue of the reference
    placed[other] = design.atom37[own, atoms.CA]
    native = reference.atom37[:, atoms.CA]
    score = tm_score(torch.from_numpy(placed), torch.from_numpy(native), torch.ones(len(native)))
    found = {
        "recovery": number(recovery if known else np.nan, "no sequence"),
        "ca_rmsd": number(_rmsd(design, own, reference, other, [atoms.CA]), "no residue"),
        "backbone_rmsd": number(_rmsd(design, own, reference, other, _BACKBONE), "no residue"),
        "tm_score": number(score, "no residue"),
        "lddt": number(_lddt(placed, reference), "no two residues within 15 angstrom"),
    }
    return {column: {"reference": name, **found}[column] for column in AGAINST}


def corresponding(design: Protein, reference: Protein) -> tuple[np.ndarray, np.ndarray]:
    """Residues of the design and of the reference that stand for each other, [K] each.

    Of two of the same length those in the same place; of others those that their sequences align, where these say that
    it is one protein. Raises UserError elsewhere.
    """
    if len(design) == len(reference):
        every = np.arange(len(design))
        return every, every
    sequences = [ProteinSequence(to_sequence(one.aatype)) for one in (design, reference)]
    trace = align_optimal(*sequences, _MATRIX, _GAPS, terminal_penalty=False, max_number=1)[0].trace
    own, other = trace[(trace >= 0).all(-1)].T
    same = (design.aatype[own] == reference.aatype[other]) & (design.aatype[own] < NUM_AATYPES)
    if same.sum() < SAME * min(len(design), len(reference)):
        raise UserError(
            f"{len(design)} residues do not correspond to the {len(reference)} of the reference, nor the sequences"
        )
    return own, other


def _rmsd(design: Protein, own: np.ndarray, reference: Protein, other: np.ndarray, slots: list[int]) -> float:
    """Root mean square distance of these atoms after superposing them, angstrom."""
    mobile = torch.from_numpy(design.atom37[own][:, slots].reshape(-1, 3)).double()
    target = torch.from_numpy(reference.atom37[other][:, slots].reshape(-1, 3)).double()
    moved = superpose(mobile, target, torch.ones(len(mobile), dtype=torch.float64))
    return float((moved - target).square().sum(-1).mean().sqrt())


def _lddt(placed: np.ndarray, reference: Protein) -> float:
    """Of CA atoms [N, 3] where the reference has them; NaN for those that the design lacks, which count as wrong."""
    trace = struc.AtomArray(len(reference))
    trace.coord = reference.atom37[:, atoms.CA]
    trace.res_id, trace.chain_id = np.arange(len(reference)), reference.chain_idx.astype(str)
    if len(trace) < 2:
        return float("nan")
    with np.errstate(invalid="ignore"):
        return float(struc.lddt(trace, placed))
