"""ProteinMPNN: a sequence for a backbone, residue by residue in any order."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.evaluation.refold.mpnn.features import ProteinFeatures, of_neighbours
from app.evaluation.refold.mpnn.layers import DecoderLayer, EncoderLayer

LETTERS = "ACDEFGHIKLMNPQRSTVWYX"
"""Residue types in the order of the weights; the last stands for an unknown one and is never drawn."""

NOT_GIVEN = -1


@dataclass(frozen=True)
class Encoded:
    """Backbones as the decoder sees them: B of them, N residues, K neighbours."""

    node: Tensor  # [B, N, D]
    edge: Tensor  # [B, N, K, D]
    nearest: Tensor  # [B, N, K] index of each neighbour
    there: Tensor  # [B, N, K] bool, false where the neighbour is padding

    def repeated(self, times: int) -> "Encoded":
        """Each backbone that often in a row: for as many sequences of it."""
        return Encoded(*(x.repeat_interleave(times, 0) for x in (self.node, self.edge, self.nearest, self.there)))


class ProteinMPNN(nn.Module):
    def __init__(self, width: int = 128, neighbours: int = 48, encoder_depth: int = 3, decoder_depth: int = 3):
        super().__init__()
        self.features = ProteinFeatures(width, neighbours)
        self.W_e = nn.Linear(width, width)
        self.W_s = nn.Embedding(len(LETTERS), width)
        self.encoder_layers = nn.ModuleList(EncoderLayer(width) for _ in range(encoder_depth))
        self.decoder_layers = nn.ModuleList(DecoderLayer(width) for _ in range(decoder_depth))
        self.W_out = nn.Linear(width, len(LETTERS))

    def encode(self, atoms: Tensor, mask: Tensor, numbers: Tensor, chains: Tensor) -> Encoded:
        """atoms: [B, N, 4, 3] N, CA, C and O in angstrom; mask: [B, N] bool, true where there is a residue; numbers,
        chains: [B, N] int."""
        edge, nearest = self.features(atoms, mask, numbers, chains)
        edge = self.W_e(edge)
        there = of_neighbours(mask[..., None], nearest)[..., 0]
        node = edge.new_zeros(*mask.shape, edge.shape[-1])
        for layer in self.encoder_layers:
            node, edge = layer.encode(node, edge, nearest, there)
        return Encoded(node, edge, nearest, there)

    def forward(self, encoded: Encoded, tokens: Tensor, order: Tensor) -> Tensor:
        """log P of each residue type at each residue, [B, N, 21], given the types of those before it in the order.

        tokens: [B, N] indices of `LETTERS`; order: [B, N], the residues as they are decoded.
        """
        rank = torch.argsort(order, dim=1)
        before = (of_neighbours(rank[..., None], encoded.nearest)[..., 0] < rank[..., None])[..., None]
        types = of_neighbours(self.W_s(tokens), encoded.nearest) * before
        not_yet = of_neighbours(encoded.node, encoded.nearest)
        node = encoded.node
        for layer in self.decoder_layers:
            neighbours = torch.where(before, of_neighbours(node, encoded.nearest), not_yet)
            node = layer(node, torch.cat([encoded.edge, types, neighbours], dim=-1), encoded.there)
        return self.W_out(node).log_softmax(-1)

    def sample(
        self, encoded: Encoded, order: Tensor, noise: Tensor, temperature: float, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens [B, N], drawn one after another, and log P of each type where it was drawn, [B, N, 21].

        order: [B, N], as in `forward`. noise: [B, N, 20] of the standard Gumbel distribution: the largest of
        log P + temperature * noise is a draw from P^(1 / temperature), and at temperature 0 the likeliest. given:
        [B, N] tokens that are not drawn, `NOT_GIVEN` elsewhere.
        """
        row = torch.arange(len(order), device=order.device)
        tokens = torch.full_like(order, NOT_GIVEN) if given is None else given.clone()
        types = torch.zeros_like(encoded.node)  # embedded, 0 where not decoded yet
        said = encoded.node.new_zeros(*order.shape, len(LETTERS))
        # what goes into each layer: residues that are not decoded yet stand at their encoding
        states = [encoded.node] + [encoded.node.clone() for _ in self.decoder_layers[1:]]
        for place in order.unbind(1):
            nearest, there, edge = (x[row, place] for x in (encoded.nearest, encoded.there, encoded.edge))
            types_near = of_neighbours(types, nearest)
            node, made = encoded.node[row, place], []
            for layer, state in zip(self.decoder_layers, states, strict=True):
                made.append(node)
                node = layer(node, torch.cat([edge, types_near, of_neighbours(state, nearest)], dim=-1), there)
            for state, one in zip(states[1:], made[1:], strict=True):
                state[row, place] = one
            said[row, place] = self.W_out(node).log_softmax(-1)
            drawn = (said[row, place, :-1] + temperature * noise[row, place]).argmax(-1)
            tokens[row, place] = torch.where(tokens[row, place] == NOT_GIVEN, drawn, tokens[row, place])
            types[row, place] = self.W_s(tokens[row, place])
        return tokens, said
