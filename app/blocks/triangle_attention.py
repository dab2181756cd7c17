"""Triangle attentions and a transition (AlphaFold 3, algorithms 14 and 15)."""

from torch import Tensor

from app.blocks import base, pairformer_noseq
from app.blocks.parts.gated_transition import GatedTransition
from app.blocks.parts.triangle_modules import TriangleAttentions
from app.types import TrunkState


class Settings(pairformer_noseq.Settings):
    """Sizes as in the pairformer."""


class Block(base.Block):
    """Reads and enriches the edges: around the starting node, around the ending node, transition."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.attention = TriangleAttentions(
            settings.c_z, settings.pair_num_heads, settings.pair_head_width, settings.dropout
        )
        self.transition = GatedTransition(settings.c_z, settings.transition_factor)

    def forward(self, state: TrunkState) -> TrunkState:
        return state.replace(edge=self.edge_track(self._update, state.edge, state.edge_mask))

    def _update(self, edge: Tensor, mask: Tensor) -> Tensor:
        edge = self.attention(edge, mask)
        return edge + self.transition(edge) * mask[..., None]
