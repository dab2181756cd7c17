"""Edge embedding: pairs of nodes, relative position and distances of the noisy CA, to the edge representation."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from app.blocks.parts.embedding import index_embedding
from app.devices import full_precision
from app.ops.edge_embedding import edge_embedding
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
    """Node representation and noisy batch -> edge representation [B, N, N, c_z], 0 where absent.

    The relative position is that of the rows, 0 .. N - 1, whatever the residue index says (as in Multiflow).
    """

    operations = ("edge_embedding",)

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

    def relative_positions(self, length: int, device: torch.device) -> Tensor:
        """Every offset -(N - 1) .. N - 1 projected, [2 N - 1, feature_width] float32 under any autocast."""
        offsets = torch.arange(1 - length, length, device=device)
        with full_precision(device):
            return self.relative(index_embedding(offsets, self.settings.feature_width, _RELATIVE_MAX_LEN))

    def forward(self, node: Tensor, batch: NoisyBatch, relative: Tensor, edge_mask: Tensor) -> Tensor:
        """node: [B, N, c_s]; relative: `relative_positions`; edge_mask: [B, N, N]."""
        settings, project = self.settings, self.project
        layers = [(layer.weight, layer.bias) for layer in (project[0], project[2], project[4], project[5])]
        return edge_embedding(
            self.node(node),
            relative,
            (batch.trans_t, batch.trans_sc) if settings.self_condition else (batch.trans_t,),
            settings.num_bins,
            batch.chain_idx if settings.embed_chain else None,
            batch.diffuse_mask if settings.embed_diffuse_mask else None,
            *layers,
            edge_mask,
        )
