"""One processed chain or complex of Multiflow's data set, from its pickle to features."""

from pathlib import Path

import numpy as np
import torch

from app.chem.atoms import CA, NUM_ATOM37, C, N
from app.chem.residues import UNKNOWN
from app.data.numpy_pickle import load_numpy_pickle
from app.errors import UserError
from app.geometry.frames import frames_from_backbone

_SHAPES = {
    "atom_positions": (NUM_ATOM37, 3),
    "atom_mask": (NUM_ATOM37,),
    "b_factors": (NUM_ATOM37,),
    "aatype": (),
    "residue_index": (),
    "chain_index": (),
}


def read_entry(path: str | Path) -> dict[str, torch.Tensor]:
    """Features of a processed file, over the N residues from the first to the last modelled one.

    res_mask [N]: 1 where N, CA and C are present and span a frame; diffuse_mask [N]: the same. res_idx [N]: 1 for each
    chain's first residue, gaps kept. chain_idx [N]: 1, 2, ... in order of appearance. trans_1 [N, 3]: CA, angstrom,
    centred on their mean. rotmats_1 [N, 3, 3]. aatypes_1 [N]. plddt [N]: the CA's B-factor, which in predicted
    structures is the pLDDT (0 to 100). Where res_mask is 0, trans_1 is 0 and rotmats_1 the identity.

    Raises UserError naming the file and the reason: unreadable, arrays missing or of wrong shape, coordinates not
    finite, no usable residue.
    """
    arrays = _span(path, _validated(path, load_numpy_pickle(path)))
    backbone = arrays["atom_positions"][:, [N, CA, C]].astype(np.float64)
    present = (arrays["atom_mask"][:, [N, CA, C]] > 0).all(axis=1)
    if not np.isfinite(backbone[present]).all():
        raise UserError(f"{path}: its coordinates are not all finite; make it again or take it out of the metadata")
    backbone[~present] = 0.0
    rotmats = _rotations(torch.from_numpy(backbone))
    present &= _are_rotations(rotmats).numpy()
    if not present.any():
        raise UserError(f"{path}: no residue has N, CA and C; take it out of the metadata")
    ca = np.where(present[:, None], backbone[:, 1] - backbone[present, 1].mean(axis=0), 0.0)

    mask = torch.from_numpy(present).float()
    chain_idx, res_idx = _numbered(arrays["chain_index"], arrays["residue_index"])
    return {
        "res_mask": mask,
        "diffuse_mask": mask.clone(),
        "chain_idx": torch.from_numpy(chain_idx),
        "res_idx": torch.from_numpy(res_idx),
        "trans_1": torch.from_numpy(ca).float(),
        "rotmats_1": torch.where(mask[:, None, None] > 0, rotmats, torch.eye(3)),
        "aatypes_1": torch.from_numpy(arrays["aatype"].astype(np.int64)),
        "plddt": torch.from_numpy(arrays["b_factors"][:, CA].astype(np.float32)).nan_to_num(0.0),
    }


def _validated(path, arrays: dict) -> dict:
    """The arrays we read, if all there and of one length."""
    missing = [key for key in _SHAPES if not isinstance(arrays.get(key), np.ndarray)]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; expected one of Multiflow's processed chains")
    length = len(np.atleast_1d(arrays["aatype"]))
    for key, shape in _SHAPES.items():
        if arrays[key].shape != (length, *shape) or arrays[key].dtype.kind not in "biuf":
            raise UserError(f"{path}: {key} has shape {arrays[key].shape}, expected {(length, *shape)} of numbers")
    if length == 0 or not ((arrays["aatype"] >= 0) & (arrays["aatype"] <= UNKNOWN)).all():
        raise UserError(f"{path}: aatype must be 0 to {UNKNOWN} for at least one residue")
    return arrays


def _span(path, arrays: dict) -> dict:
    """Cut to first..last modelled residue. Files without `modeled_idx`: to those of a known residue type."""
    modelled = arrays.get("modeled_idx")
    length = len(arrays["aatype"])
    if not isinstance(modelled, np.ndarray):
        modelled = np.flatnonzero(arrays["aatype"] != UNKNOWN)
    if modelled.ndim != 1 or len(modelled) == 0 or modelled.min() < 0 or modelled.max() >= length:
        raise UserError(f"{path}: modeled_idx names no residue, or one beyond its {length}")
    span = slice(int(modelled.min()), int(modelled.max()) + 1)
    return {key: arrays[key][span] for key in _SHAPES}


def _rotations(backbone: torch.Tensor) -> torch.Tensor:
    """[N, 3, 3] float32 of backbone [N, 3 atoms, 3]."""
    return frames_from_backbone(*backbone.unbind(dim=1)).rotmats.float()


def _are_rotations(rotmats: torch.Tensor) -> torch.Tensor:
    """[N] bool; false where the three atoms lie on one line or point, which gives no frame."""
    return ((rotmats @ rotmats.mT - torch.eye(3)).abs().amax(dim=(-2, -1)) < 1e-3) & rotmats.isfinite().all(-1).all(-1)


def _numbered(chain_index: np.ndarray, residue_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chains 1, 2, ... in order of appearance; residues from 1 in each, gaps kept."""
    chains, first, inverse = np.unique(chain_index, return_index=True, return_inverse=True)
    chain_idx = np.argsort(np.argsort(first))[inverse] + 1
    lowest = np.full(len(chains), np.iinfo(np.int64).max)
    np.minimum.at(lowest, inverse, residue_index.astype(np.int64))
    return chain_idx.astype(np.int64), residue_index.astype(np.int64) - lowest[inverse] + 1
