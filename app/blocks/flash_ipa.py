"""Invariant point attention without a pair tensor, node transition, backbone update: memory goes with N."""

from pydantic import Field
from torch import nn

from app.blocks import base
from app.blocks.parts.dropout import Dropout
from app.blocks.parts.factorised_point_attention import FactorisedPointAttention
from app.blocks.parts.node_frames import NodeFramesSettings
from app.blocks.parts.transitions import BackboneUpdate, NodeTransition
from app.phase import Rate
from app.types import TrunkState


class Settings(NodeFramesSettings):
    """Heads and points as in the `ipa` block; rank as published."""

    num_heads: int = Field(8, gt=0)
    head_width: int = Field(16, gt=0, description="width of a head's scalar queries, keys and values")
    num_qk_points: int = Field(8, gt=0)
    num_v_points: int = Field(12, gt=0)
    rank: int = Field(2, gt=0, description="of the factorised pair representation")
    pair_width: int = Field(32, gt=0, description="width of the pair values; c_z / 4 in the `ipa` block")
    dropout: Rate = Field(0.0, description="on what the attention adds to the nodes")


class Block(base.Block):
    """Enriches node, and frames (`update_backbone`), from both (FlashIPA, Liu et al. 2025)."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        c_s = settings.c_s
        self.attention = FactorisedPointAttention(
            c_s,
            settings.num_heads,
            settings.head_width,
            settings.num_qk_points,
            settings.num_v_points,
            settings.rank,
            settings.pair_width,
        )
        self.dropout = Dropout(settings.dropout)
        self.norm = nn.LayerNorm(c_s)
        self.node_transition = NodeTransition(c_s)
        self.backbone_update = BackboneUpdate(c_s) if settings.update_backbone else None

    def forward(self, state: TrunkState) -> TrunkState:
        mask = state.node_mask[..., None]
        attended = self.dropout(self.attention(state.node, state.frames, state.node_mask))
        node = self.node_transition(self.norm(state.node + attended * mask)) * mask
        if self.backbone_update is None:
            return state.replace(node=node)
        return state.replace(node=node, frames=self.backbone_update(node, state.frames, state.moves))
