"""Edge embedding: pairs of nodes, relative position and distances of the noisy CA, to the edge representation."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from app.blocks.parts.embedding import index_embedding
from app.model.features import distogram
from app.types import NoisyBatch

_RELATIVE_MAX_LEN = 2056


class EdgeEmbedSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    feature_width: int = Field(
        64, gt=0, multiple_of=2, description="width of the projected nodes and relative position"
    )
    num_bins: int = Field(22, gt=1, description="bins of a distogram")
    self_condition: bool = Field(True, description="see the distances of the model's previous estimate")
    embed_chain: bool = Field(False, description="see whether two residues share a chain")
    embed_diffuse_mask: bool = Field(True, description="see which residues are given")


class EdgeEmbed(nn.Module):
    """Node representation and noisy batch -> edge representation [B, N, N, c_z], not yet masked.

    The relative position is that of the rows, 0 .. N - 1, whatever the residue index says (as in Multiflow).
    """

    def __init__(self, settings: EdgeEmbedSettings, c_s: int, c_z: int):
        super().__init__()
        self.settings = settings
        width = settings.feature_width
        self.node = nn.Linear(c_s, width)
        self.relative = nn.Linear(width, width)
        total = 3 * width + settings.num_bins * (1 + settings.self_condition)
        total += settings.embed_chain + 2 * settings.embed_diffuse_mask
        self.project = nn.Sequential(
            nn.Linear(total, c_z), nn.ReLU(), nn.Linear(c_z, c_z), nn.ReLU(), nn.Linear(c_z, c_z), nn.LayerNorm(c_z)
        )

    def forward(self, node: Tensor, batch: NoisyBatch) -> Tensor:
        settings = self.settings
        size, length, _ = node.shape

        def both(x: Tensor) -> list[Tensor]:
            """[B, N, c] as seen from i and from j, each [B, N, N, c]."""
            shape = (size, length, length, x.shape[-1])
            return [x[:, :, None].expand(shape), x[:, None].expand(shape)]

        position = torch.arange(length, device=node.device)
        offset = position[:, None] - position
        relative = self.relative(index_embedding(offset, settings.feature_width, _RELATIVE_MAX_LEN))
        features = [*both(self.node(node)), relative.expand(size, -1, -1, -1)]
        features.append(distogram(batch.trans_t, settings.num_bins))
        if settings.self_condition:
            features.append(distogram(batch.trans_sc, settings.num_bins))
        if settings.embed_chain:
            same = batch.chain_idx[:, :, None] == batch.chain_idx[:, None]
            features.append(same[..., None].to(node.dtype))
        if settings.embed_diffuse_mask:
            features += both(batch.diffuse_mask[..., None])
        return self.project(torch.cat(features, dim=-1))
