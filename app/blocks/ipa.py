"""Multiflow's block: invariant point attention, a small transformer, transitions, and the backbone update."""

from collections.abc import Set
from typing import Self

from pydantic import Field, model_validator
from torch import nn

from app.blocks import base
from app.blocks.parts.linear import Linear
from app.blocks.parts.point_attention import InvariantPointAttention
from app.blocks.parts.transformer import Transformer
from app.blocks.parts.transitions import BackboneUpdate, EdgeTransition, NodeTransition
from app.phase import Rate
from app.types import TrunkState


class Settings(base.BlockSettings):
    """Published sizes of Multiflow."""

    num_heads: int = Field(8, gt=0)
    head_width: int = Field(16, gt=0, description="width of a head's scalar queries, keys and values")
    num_qk_points: int = Field(8, gt=0)
    num_v_points: int = Field(12, gt=0)
    dropout: Rate = Field(0.0, description="on the attention logits")
    transformer_heads: int = Field(4, gt=0)
    transformer_layers: int = Field(4, ge=0)
    transformer_dropout: Rate = 0.2
    update_backbone: bool = Field(True, description="the block moves the frames")
    update_edge: bool = Field(True, description="the block updates the edges")
    update_last_edge: bool = Field(
        False, description="so does the last block of a stage; off where none reads them after"
    )

    @model_validator(mode="after")
    def _widths_fit(self):
        if self.c_s % self.transformer_heads:
            raise ValueError(f"c_s={self.c_s} is not divisible by transformer_heads={self.transformer_heads}")
        if self.c_z % 4:
            raise ValueError(f"c_z={self.c_z} is not divisible by 4, which the narrowed pair values need")
        if self.c_s % 2:
            raise ValueError(f"c_s={self.c_s} is odd; the edge transition halves it")
        return self

    @property
    def reads(self) -> frozenset[base.Part]:
        return frozenset({"node", "edge", "frames"})

    @property
    def writes(self) -> frozenset[base.Part]:
        written = {"node": True, "edge": self.update_edge, "frames": self.update_backbone}
        return frozenset(part for part, does in written.items() if does)

    def layers(self, depth: int) -> list[Self]:
        last = self.model_copy(update={"update_edge": self.update_edge and self.update_last_edge})
        return [self] * (depth - 1) + [last]

    def for_readers(self, needed: Set[base.Part]) -> Self | None:
        useful = {
            "update_edge": self.update_edge and "edge" in needed,
            "update_backbone": self.update_backbone and "frames" in needed,
        }
        return super(Settings, self.model_copy(update=useful)).for_readers(needed)


class Block(base.Block):
    """Enriches node, edge (`update_edge`) and frames (`update_backbone`); reads all of them."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        c_s, c_z = settings.c_s, settings.c_z
        self.attention = InvariantPointAttention(
            c_s,
            c_z,
            settings.num_heads,
            settings.head_width,
            settings.num_qk_points,
            settings.num_v_points,
            settings.dropout,
        )
        self.norm = nn.LayerNorm(c_s)
        self.transformer = Transformer(
            c_s, settings.transformer_heads, settings.transformer_layers, settings.transformer_dropout
        )
        self.after_transformer = Linear(c_s, c_s, init="zero")
        self.node_transition = NodeTransition(c_s)
        self.backbone_update = BackboneUpdate(c_s) if settings.update_backbone else None
        self.edge_transition = EdgeTransition(c_s, c_z) if settings.update_edge else None

    def forward(self, state: TrunkState) -> TrunkState:
        mask = state.node_mask[..., None]
        attended = self.attention(state.node, state.edge, state.frames, state.node_mask)
        node = self.norm(state.node + attended * mask)
        node = node + self.after_transformer(self.transformer(node, state.node_mask))
        node = self.node_transition(node) * mask

        frames, edge = state.frames, state.edge
        if self.backbone_update is not None:
            frames = self.backbone_update(node, frames, state.moves)
        if self.edge_transition is not None:
            edge = self.edge_track(self.edge_transition, node, edge, state.edge_mask)
        return state.replace(node=node, edge=edge, frames=frames)
