"""Triangle attentions and a transition (AlphaFold 3, algorithms 14 and 15)."""

from pydantic import Field

from app.blocks import base
from app.blocks.swiglu import Transition
from app.blocks.triangle_modules import TriangleAttentions
from app.phase import Rate
from app.types import TrunkState


class Settings(base.BlockSettings):
    """Boltz-2's sizes."""

    pair_num_heads: int = Field(4, gt=0)
    pair_head_width: int = Field(32, gt=0)
    transition_factor: int = Field(4, gt=0, description="hidden width of the transition over its outer one")
    dropout: Rate = Field(0.25, description="on the triangle updates, shared along whole rows and columns")

    @property
    def reads(self) -> frozenset[base.Part]:
        return frozenset({"edge"})

    @property
    def writes(self) -> frozenset[base.Part]:
        return frozenset({"edge"})


class Block(base.Block):
    """Reads and enriches the edges: around the starting node, around the ending node, transition."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.attention = TriangleAttentions(
            settings.c_z, settings.pair_num_heads, settings.pair_head_width, settings.dropout
        )
        self.transition = Transition(settings.c_z, settings.transition_factor)

    def forward(self, state: TrunkState) -> TrunkState:
        edge = self.attention(state.edge, state.edge_mask)
        return state.replace(edge=edge + self.transition(edge) * state.edge_mask[..., None])
