"""Helix, strand or neither, from the trace of the CA atoms (P-SEA: Labesse et al. 1997, as biotite has it)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

HELIX, STRAND, LOOP = "H", "E", "L"

FARTHEST = 500.0
"""Angstrom from the middle of the trace; residues beyond, as of designs that fell apart, are taken as absent."""

_OURS = {"a": HELIX, "b": STRAND, "c": LOOP, "": LOOP}


def secondary_structure(ca: Tensor, chain_idx: Tensor, res_idx: Tensor) -> str:
    """A letter a residue: H (helix), E (strand), L (neither).

    ca: [N, 3] angstrom; chain_idx, res_idx: [N]; where numbers jump or the chain changes, the trace is taken as broken.
    """
    import biotite.structure as struc  # takes a second to import

    trace = struc.AtomArray(len(ca))
    ca = ca.float().cpu()
    near = (ca - ca.nanmedian(0).values).norm(dim=-1) < FARTHEST
    trace.coord = torch.where(near[:, None], ca, torch.nan).numpy()
    trace.atom_name[:], trace.res_name[:], trace.element[:] = "CA", "ALA", "C"
    numbers, chains = res_idx.cpu().numpy(), chain_idx.cpu().numpy()
    trace.res_id = numbers + chains * (1 + np.abs(numbers).max(initial=0))  # biotite sees breaks in numbers only
    return "".join(_OURS[state] for state in struc.annotate_sse(trace))


def contents(states: Sequence[str]) -> dict[str, float]:
    """Shares of the residues in helices and in strands; 0 where there is no residue."""
    count = max(1, len(states))
    return {"helix": states.count(HELIX) / count, "strand": states.count(STRAND) / count}
