"""How certain a model is of a residue type: the probability that its last call gave to it."""

import torch
from torch import Tensor

from app.chem.residues import MASK_TOKEN
from app.flow.tokens import residue_probabilities
from app.sampling.inputs import Start


def certainty(tokens: Tensor, logits: Tensor, start: Start) -> Tensor:
    """Probability of each token under the logits at temperature 1, whatever temperature it was drawn at.

    tokens: [B, N] int64. logits: [B, N, 21], 0 throughout where there is no sequence head. Returns [B, N] float32 in
    [0, 1]: 1 for a token that is given, since nothing about it is left to the model; 0 where there is no residue type
    (the mask token, X), no opinion (no sequence head) or no residue.
    """
    probability = residue_probabilities(logits, temperature=1.0).gather(-1, tokens[..., None])[..., 0]
    probability = probability * (logits != 0).any(-1)
    known = (start.given_tokens != MASK_TOKEN) * start.res_mask
    return torch.where(start.tokens_move, probability, known)
