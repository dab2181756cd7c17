"""What ProteinMPNN sees of a backbone: each residue's nearest neighbours, and where their atoms lie.

Dauparas et al. 2022, supplement. All of it is invariant to rotations and translations, and computed in float32.
"""

import torch
from torch import Tensor, nn

from app.devices import full_precision

N, CA, C, O, CB = range(5)  # noqa: E741 - the oxygen's name
_PAIRS = [
    (CA, CA), (N, N), (C, C), (O, O), (CB, CB), (CA, N), (CA, C), (CA, O), (CA, CB), (N, C), (N, O), (N, CB), (CB, C),
    (CB, O), (O, C), (N, CA), (C, CA), (O, CA), (CB, CA), (C, N), (O, N), (CB, N), (C, CB), (O, CB), (C, O),
]  # fmt: skip
"""(atom of the residue, atom of its neighbour), in the order that the weights know."""

RADIAL = 16
_NEAREST, _FARTHEST = 2.0, 22.0  # centres of the radial basis functions, angstrom

POSITIONAL = 16
_FARTHEST_OFFSET = 32
OTHER_CHAIN = 2 * _FARTHEST_OFFSET + 1  # the class of pairs in different chains, after those of the offsets

_ROUNDING = 1e-6  # square angstrom, under the roots: part of the trained function

_BETA_FROM_CROSS, _BETA_FROM_N, _BETA_FROM_C = -0.58273431, 0.56802827, -0.54067466


class PositionalEmbedding(nn.Module):
    """How far apart in the chain, at most 32 residues either way, or that they are in different ones."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(OTHER_CHAIN + 1, POSITIONAL)

    def forward(self, offset: Tensor, same_chain: Tensor) -> Tensor:
        """[...] int and [...] bool -> [..., 16]."""
        clipped = (offset + _FARTHEST_OFFSET).clamp(0, 2 * _FARTHEST_OFFSET)
        known = torch.where(same_chain, clipped, OTHER_CHAIN)
        return self.linear.weight.T[known] + self.linear.bias  # the layer on one-hot classes


class ProteinFeatures(nn.Module):
    """Edges from every residue to its `neighbours` nearest ones by CA, itself the first."""

    def __init__(self, width: int, neighbours: int):
        super().__init__()
        self.neighbours = neighbours
        self.embeddings = PositionalEmbedding()
        self.edge_embedding = nn.Linear(POSITIONAL + len(_PAIRS) * RADIAL, width, bias=False)
        self.norm_edges = nn.LayerNorm(width)

    def forward(self, atoms: Tensor, mask: Tensor, numbers: Tensor, chains: Tensor) -> tuple[Tensor, Tensor]:
        """atoms: [B, N, 4, 3] N, CA, C and O in angstrom; mask: [B, N] bool, residue is there; numbers, chains: [B, N].

        Returns edges [B, N, K, width] and the index of each neighbour [B, N, K]; K is N where residues are few. Absent
        ones are neighbours only where there are not enough others.
        """
        with full_precision(atoms.device):
            atoms = with_beta(atoms.float())
            nearest = nearest_residues(atoms[..., CA, :], mask, self.neighbours)
            theirs = of_neighbours(atoms.flatten(-2), nearest).unflatten(-1, (5, 3))  # [B, N, K, 5, 3]
            own = atoms[:, :, None]
            gaps = [own[..., mine, :] - theirs[..., other, :] for mine, other in _PAIRS]
            distances = (torch.stack(gaps, dim=-2).square().sum(-1) + _ROUNDING).sqrt()  # [B, N, K, 25]
            offset = numbers[..., None] - of_neighbours(numbers[..., None], nearest)[..., 0]
            same_chain = chains[..., None] == of_neighbours(chains[..., None], nearest)[..., 0]
            seen = torch.cat([self.embeddings(offset, same_chain), radial_basis(distances).flatten(-2)], dim=-1)
            return self.norm_edges(self.edge_embedding(seen)), nearest


def with_beta(atoms: Tensor) -> Tensor:
    """[..., 4, 3] -> [..., 5, 3]: with CB where an ideal residue has it, on glycine too."""
    n, ca, c, _ = atoms.unbind(-2)
    to_ca, to_c = ca - n, c - ca
    beta = ca + _BETA_FROM_CROSS * torch.linalg.cross(to_ca, to_c) + _BETA_FROM_N * to_ca + _BETA_FROM_C * to_c
    return torch.cat([atoms, beta[..., None, :]], dim=-2)


def nearest_residues(ca: Tensor, mask: Tensor, count: int) -> Tensor:
    """[B, N, 3] angstrom and [B, N] bool -> [B, N, K] indices, the nearest first."""
    distance = ((ca[:, :, None] - ca[:, None]).square().sum(-1) + _ROUNDING).sqrt()
    distance = distance.masked_fill(~mask[:, None, :], torch.inf)
    return distance.topk(min(count, ca.shape[1]), dim=-1, largest=False).indices


def radial_basis(distances: Tensor) -> Tensor:
    """[...] angstrom -> [..., 16]: Gaussians as wide as their centres would be apart were there one more."""
    centres = torch.linspace(_NEAREST, _FARTHEST, RADIAL, device=distances.device)
    width = (_FARTHEST - _NEAREST) / RADIAL
    return (-((distances[..., None] - centres) / width).square()).exp()


def of_neighbours(values: Tensor, nearest: Tensor) -> Tensor:
    """Values of each residue's neighbours: [B, N, D] and [B, ..., K] -> [B, ..., K, D]."""
    flat = nearest.flatten(1)
    return values.gather(1, flat[..., None].expand(-1, -1, values.shape[-1])).unflatten(1, nearest.shape[1:])
