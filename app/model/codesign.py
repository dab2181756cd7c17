"""The whole model: a noisy protein in, an estimate of the clean one out (Multiflow, Campbell et al. 2024)."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from app.chem.residues import NUM_AATYPES
from app.geometry.units import to_angstrom, to_nanometre
from app.model.edge_embed import EdgeEmbed, EdgeEmbedSettings
from app.model.heads import build_head
from app.model.node_embed import NodeEmbed, NodeEmbedSettings
from app.model.trunk import Trunk, TrunkSettings
from app.types import Frames, NoisyBatch, Prediction, TrunkState


class EsmSettings(BaseModel):
    """The language model's combiner; there is none yet but the one that adds nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["none"] = "none"


class ModelSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    c_s: int = Field(256, gt=0, description="width of the node representation")
    c_z: int = Field(128, gt=0, description="width of the edge representation")
    num_tokens: int = Field(21, ge=20, le=21, description="columns of the logits; 20 where the flow has no mask token")
    node_embed: NodeEmbedSettings = NodeEmbedSettings()
    edge_embed: EdgeEmbedSettings = EdgeEmbedSettings()
    trunk: TrunkSettings
    esm: EsmSettings = EsmSettings()
    head: dict = {"kind": "mlp"}


class CodesignModel(nn.Module):
    """`NoisyBatch -> Prediction`. SE(3)-equivariant: predicted frames move with the noisy ones, logits do not."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.settings = settings
        self.node_embed = NodeEmbed(settings.node_embed, settings.c_s, settings.num_tokens)
        self.edge_embed = EdgeEmbed(settings.edge_embed, settings.c_s, settings.c_z)
        self.head = build_head(settings.head, settings.c_s, settings.num_tokens)
        self.trunk = Trunk(settings.trunk, settings.c_s, settings.c_z)

    def embed(self, batch: NoisyBatch) -> TrunkState:
        """The trunk's input: masked representations, frames in nanometre."""
        node_mask = batch.res_mask
        edge_mask = node_mask[:, :, None] * node_mask[:, None]
        node = self.node_embed(batch)
        edge = self.edge_embed(node, batch)
        return TrunkState(
            node=node * node_mask[..., None],
            edge=edge * edge_mask[..., None],
            frames=to_nanometre(Frames(batch.rotmats_t.float(), batch.trans_t.float())),
            node_mask=node_mask,
            edge_mask=edge_mask,
            t=torch.cat([batch.so3_t, batch.r3_t, batch.cat_t], dim=-1),
            frame_mask=node_mask * batch.diffuse_mask,
        )

    def forward(self, batch: NoisyBatch) -> Prediction:
        state = self.trunk(self.embed(batch))
        frames = to_angstrom(state.frames)
        logits = self.head(state).float()
        return Prediction(frames.trans, frames.rotmats, logits, most_likely(logits))


def most_likely(logits: Tensor) -> Tensor:
    """Most likely residue type, the mask token excluded: [B, N, 20 or 21] -> [B, N] int64."""
    return logits[..., :NUM_AATYPES].argmax(-1)
