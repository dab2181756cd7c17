"""The attention of FAPLM's layers by our operation, on sequences that lie packed, without padding."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from app.model.esm.tokens import TokenLayout
from app.ops.esm_attention import Sequences, esm_attention


@dataclass(frozen=True)
class Packed:
    """What the layers' attention has to know of the tokens: FAPLM hands it through, as its `cu_seqlens`."""

    sequences: Sequences
    cos: Tensor  # [tokens, 1, D / 2] float32, of the rotary embedding
    sin: Tensor


def take_over(layers: nn.Module) -> None:
    """Put our operation in the place of FAPLM's attention. Weights and their names stay."""
    for layer in layers:
        attention = layer.attention.self
        attention.forward = partial(_attend, attention)


def hidden_states(model: nn.Module, embedded: Tensor, layout: TokenLayout) -> list[Tensor]:
    """Of all layers, [all tokens but padding, D] each: FAPLM's encoder on the embedded tokens [B, T, D]."""
    attention = model.encoder.layer[0].attention.self
    angle = (layout.packed % layout.fixed.shape[1])[:, None, None] * attention.rotary_embeddings.inv_freq
    packed = Packed(layout.sequences, angle.cos(), angle.sin())
    given = embedded.flatten(0, 1)[layout.packed]
    return model.encoder(given, cu_seqlens=packed, output_hidden_states=True).hidden_states


def _attend(attention: nn.Module, hidden_states: Tensor, cu_seqlens: Packed, **_) -> tuple[Tensor]:
    """In place of `FAEsmSelfAttention.forward`: [tokens, D] -> [tokens, D]."""
    heads = attention.num_attention_heads
    q, k, v = (
        layer(hidden_states).unflatten(-1, (heads, -1)) for layer in (attention.query, attention.key, attention.value)
    )
    q, k = _rotated(torch.cat([q, k], dim=1), cu_seqlens).to(v.dtype).split(heads, dim=1)
    return (esm_attention(q, k, v, cu_seqlens.sequences).flatten(-2),)


def _rotated(x: Tensor, packed: Packed) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of [tokens, H, D], in float32; channel i turns with i + D / 2."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = packed.cos, packed.sin
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
