"""The language model's input: embedded tokens, rescaled for those that are masked, within bounds."""

import torch
from torch import Tensor, nn

TRAINED_MASK_RATIO = 0.15 * 0.8
"""Share of tokens that were masked in the training of ESM-2: 80 % of the 15 % that were to be predicted."""

MAX_MASK_RATIO = 0.5
"""Largest share of masked tokens that the rescaling follows."""


def embedded(table: nn.Embedding, ids: Tensor, mask: int, padding: int) -> Tensor:
    """Tokens [B, T] -> [B, T, D], as ESM-2 embeds them (its `token_dropout`; Rives et al. 2021's code).

    Masked tokens are zero, and all others are scaled by (1 - 0.12) / (1 - share of masked ones), so that the sum stays
    as in training. A design starts from masks alone: the share is 1 less two tokens then, and <cls> and <eos> would be
    blown up by a factor that grows with the length. So the share counts up to `MAX_MASK_RATIO`: below it, all is ESM's
    own; above it the factor stays at 1.76.
    """
    masked = ids == mask
    ratio = masked.sum(-1).float() / (ids != padding).sum(-1)
    scale = (1 - TRAINED_MASK_RATIO) / (1 - ratio.clamp(max=MAX_MASK_RATIO))
    values = torch.where(masked[..., None], 0.0, table(ids).float()) * scale[:, None, None]
    return values.to(table.weight.dtype)
