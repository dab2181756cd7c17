"""Node embedding: position, times, noisy tokens and the model's previous logits, to the node representation."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from app.blocks.parts.embedding import index_embedding, time_embedding
from app.chem.residues import NUM_TOKENS
from app.types import NoisyBatch

_POSITION_MAX_LEN = 2056
_CHAIN_MAX_LEN = 100


class NodeEmbedSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    c_position: int = Field(128, gt=0, multiple_of=2, description="width of the embedded residue and chain index")
    c_time: int = Field(128, ge=4, multiple_of=2, description="width of each embedded time")
    embed_chain: bool = Field(False, description="see the chain index")
    embed_tokens: bool = Field(True, description="see the noisy tokens, their time, and the previous logits")
    mlp: bool = Field(True, description="three layers and a LayerNorm instead of one linear layer")


class NodeEmbed(nn.Module):
    """Noisy batch -> node representation [B, N, c_s], not yet masked."""

    def __init__(self, settings: NodeEmbedSettings, c_s: int, num_tokens: int):
        super().__init__()
        self.settings, self.num_tokens = settings, num_tokens
        width = settings.c_position + 1 + 2 * settings.c_time
        if settings.embed_tokens:
            self.token = nn.Embedding(NUM_TOKENS, c_s)
            width += c_s + settings.c_time + num_tokens
        if settings.embed_chain:
            width += settings.c_position
        if settings.mlp:
            self.project = nn.Sequential(
                nn.Linear(width, c_s), nn.ReLU(), nn.Linear(c_s, c_s), nn.ReLU(), nn.Linear(c_s, c_s), nn.LayerNorm(c_s)
            )
        else:
            self.project = nn.Linear(width, c_s)

    def places(self, batch: NoisyBatch) -> tuple[Tensor, Tensor | None]:
        """Residue and chain index embedded, each [B, N, c_position], 0 where absent; None for a chain not seen."""
        settings, mask = self.settings, batch.res_mask[..., None]
        position = index_embedding(batch.res_idx, settings.c_position, _POSITION_MAX_LEN) * mask
        if not settings.embed_chain:
            return position, None
        return position, index_embedding(batch.chain_idx, settings.c_position, _CHAIN_MAX_LEN) * mask

    def forward(self, batch: NoisyBatch, position: Tensor, chain: Tensor | None) -> Tensor:
        """position, chain: `places` of the batch."""
        settings, mask = self.settings, batch.res_mask[..., None]

        def embed_t(t: Tensor) -> Tensor:
            return time_embedding(t, settings.c_time)[:, None] * mask

        features = [
            position,
            batch.diffuse_mask[..., None],
            embed_t(batch.so3_t),
            embed_t(batch.r3_t),
        ]
        if settings.embed_tokens:
            previous = batch.aatypes_sc[..., : self.num_tokens]
            features += [self.token(batch.aatypes_t.long()), embed_t(batch.cat_t), previous]
        if chain is not None:
            features.append(chain)
        return self.project(torch.cat(features, dim=-1))
