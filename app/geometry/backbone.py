"""Frames to backbone atoms."""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.chem import atoms, backbone
from app.types import Frames

_N, _CA, _C, _CB, _O = atoms.N, atoms.CA, atoms.C, atoms.CB, atoms.O


def backbone_atoms(frames: Frames) -> Tensor:
    """N, CA, C of ideal residues in these frames, [..., N, 3, 3]; frames [..., N], angstrom."""
    ideal = backbone.IDEAL_N, backbone.IDEAL_CA, backbone.IDEAL_C
    return torch.stack([_placed(point, frames) for point in ideal], dim=-2)


def to_atom37(frames: Frames, peptide_bond: Tensor | None = None, *, oxygen: str = "planar") -> Tensor:
    """N, CA, C, CB and O of ideal residues in these frames; the other atoms are 0.

    frames: [..., N], angstrom. peptide_bond: [..., N] bool, true where the next residue is bonded to this one (None:
    all but the last). oxygen: "planar" puts it into the plane of the peptide bond, opposite the sum of the directions
    to CA and to the next N; without a next residue it takes the side of the residue's own N. "collapsed" leaves it on
    the CA-C axis, where Multiflow's `to_atom37` has it.
    Returns [..., N, 37, 3], angstrom.
    """
    trans = frames.trans
    n, ca, c = backbone_atoms(frames).unbind(-2)
    cb = _placed(backbone.IDEAL_CB, frames)
    to_c = F.normalize(c - ca, dim=-1)
    if oxygen == "collapsed":
        o = c + backbone.OXYGEN_ALONG_CA_C * to_c
    else:
        if peptide_bond is None:
            peptide_bond = torch.ones(trans.shape[:-1], dtype=torch.bool, device=trans.device)
            peptide_bond[..., -1] = False
        from_next_n = F.normalize(c - torch.roll(n, -1, dims=-2), dim=-1)
        to_own_n = F.normalize(n - ca, dim=-1)
        o = c + backbone.CARBONYL_BOND * F.normalize(
            to_c + torch.where(peptide_bond[..., None], from_next_n, to_own_n), dim=-1
        )
    placed = {_N: n, _CA: ca, _C: c, _CB: cb, _O: o}
    atom37 = torch.stack([placed[slot] for slot in range(len(placed))], dim=-2)
    return F.pad(atom37, (0, 0, 0, atoms.NUM_ATOM37 - len(placed)))


def _placed(point: tuple[float, float, float], frames: Frames) -> Tensor:
    """A point in every frame's own coordinates, [..., N, 3].

    Of numbers, since a tensor of them would be copied to a GPU each time, which waits for it and cannot be recorded.
    """
    along_x, along_y, along_z = frames.rotmats.unbind(-1)
    x, y, z = point
    return x * along_x + y * along_y + z * along_z + frames.trans
