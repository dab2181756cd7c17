"""ESM3's geometric attention, transition, and a backbone update on request: memory goes with N."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from app.blocks import base
from app.blocks.parts.dropout import Dropout
from app.blocks.parts.gated_transition import GatedTransition
from app.blocks.parts.linear import Linear
from app.blocks.parts.node_frames import NodeFramesSettings
from app.blocks.parts.transitions import BackboneUpdate
from app.devices import full_precision
from app.ops.geometric_attention import geometric_attention
from app.phase import Rate
from app.types import Frames, TrunkState

_SOFTPLUS_INVERSE_OF_TEN_LN_TWO = 6.930494765951626
"""ESM3's distance weights begin at softplus(0) = ln 2 for angstrom, ten times that for nanometre."""


class GeometricAttention(nn.Module):
    """Owns the weights, calls the operation. Every head has queries, keys and values of three numbers each."""

    def __init__(self, c_s: int, num_heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(c_s)
        self.project = Linear(c_s, 5 * num_heads * 3, bias=False)
        self.rotation_weight = nn.Parameter(torch.zeros(num_heads))
        self.distance_weight = nn.Parameter(torch.full((num_heads,), _SOFTPLUS_INVERSE_OF_TEN_LN_TWO))
        self.out = Linear(num_heads * 3, c_s, init="zero", bias=False)

    def forward(self, node: Tensor, frames: Frames, mask: Tensor) -> Tensor:
        """node: [B, N, c_s]; frames: [B, N], nanometre; mask: [B, N].

        Returns [B, N, c_s], to be added to node; 0 where absent.
        """
        projected = self.project(self.norm(node)).float().unflatten(-1, (5, -1, 3)).unbind(2)
        with full_precision(node.device):
            weights = F.softplus(self.rotation_weight), F.softplus(self.distance_weight)
            attended = geometric_attention(*projected, *weights, frames, mask)
        return self.out(attended.flatten(-2))


class Settings(NodeFramesSettings):
    update_backbone: bool = Field(False, description="the block moves the frames")
    num_heads: int = Field(32, gt=0, description="each of queries, keys and values of three numbers")
    transition_factor: int = Field(4, gt=0, description="hidden width of the transition, in c_s")
    dropout: Rate = Field(0.0, description="on what the attention adds to the nodes")


class Block(base.Block):
    """Enriches node, and frames (`update_backbone`), from both (ESM3, Hayes et al. 2024, supplement, algorithm 6).

    The residual stream is not normed; what the backbone update reads of it is.
    """

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        c_s = settings.c_s
        self.attention = GeometricAttention(c_s, settings.num_heads)
        self.dropout = Dropout(settings.dropout)
        self.transition = GatedTransition(c_s, settings.transition_factor)
        self.norm = nn.LayerNorm(c_s) if settings.update_backbone else None
        self.backbone_update = BackboneUpdate(c_s) if settings.update_backbone else None

    def forward(self, state: TrunkState) -> TrunkState:
        node = state.node + self.dropout(self.attention(state.node, state.frames, state.node_mask))
        node = node + self.transition(node) * state.node_mask[..., None]
        if self.backbone_update is None:
            return state.replace(node=node)
        return state.replace(node=node, frames=self.backbone_update(self.norm(node), state.frames, state.moves))
