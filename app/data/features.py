"""A protein as read from a file to the tensors that training and sampling start from."""

import numpy as np
import torch
from torch import Tensor

from app.chem import atoms
from app.chem.residues import AATYPES_WITH_X
from app.geometry.frames import frames_from_backbone
from app.types import Protein

BETWEEN_CHAINS = "/"
"""Separates the sequences of the chains of one example."""

_LETTERS = np.frombuffer(AATYPES_WITH_X.encode(), dtype=np.uint8)


def features(protein: Protein) -> dict[str, Tensor]:
    """The fields of `ProteinBatch` for one protein of N residues, without batch dimension.

    res_mask, diffuse_mask, plddt_mask: [N] float, all 1 (a Protein has only residues that are present). chain_idx,
    aatypes_1: [N] int64. res_idx: [N] int64, 1 at the first residue of each chain, gaps kept. trans_1: [N, 3] float32,
    CA in angstrom, centred on their mean. rotmats_1: [N, 3, 3] float32, from N, CA and C (AlphaFold 2, algorithm 21).
    """
    backbone = protein.atom37[:, [atoms.N, atoms.CA, atoms.C]].astype(np.float64)
    backbone -= backbone[:, 1].mean(0)  # float64 until here: large offsets must not eat digits; no such tensor is made
    frames = frames_from_backbone(*torch.from_numpy(backbone.astype(np.float32)).unbind(1))
    present = torch.ones(len(protein))
    return {
        "res_mask": present,
        "diffuse_mask": present.clone(),
        "plddt_mask": present.clone(),
        "chain_idx": torch.from_numpy(protein.chain_idx.astype(np.int64)),
        "res_idx": torch.from_numpy(_from_one(protein.res_idx, protein.chain_idx)),
        "trans_1": frames.trans,
        "rotmats_1": frames.rotmats,
        "aatypes_1": torch.from_numpy(protein.aatype.astype(np.int64)),
    }


def sequence_of(aatypes: Tensor, chain_idx: Tensor) -> str:
    """One-letter codes (X: unknown) of residues [N] int64, chain after chain, with `BETWEEN_CHAINS` between them."""
    _, sizes = torch.unique_consecutive(chain_idx, return_counts=True)
    letters = _LETTERS[aatypes.numpy()].tobytes().decode()
    ends = sizes.cumsum(0).tolist()
    return BETWEEN_CHAINS.join(letters[end - size : end] for end, size in zip(ends, sizes.tolist(), strict=True))


def _from_one(res_idx: np.ndarray, chain_idx: np.ndarray) -> np.ndarray:
    """Residue numbers shifted so that each chain begins with 1."""
    _, first, chain = np.unique(chain_idx, return_index=True, return_inverse=True)
    return (res_idx - res_idx[first][chain] + 1).astype(np.int64)
