"""A pairformer without nodes: only the edges are updated (Boltz-2's variant of AlphaFold 3, algorithm 17)."""

from pydantic import Field

from app.blocks import base
from app.blocks.parts.tracks import PairTrack
from app.phase import Rate
from app.types import TrunkState


class Settings(base.EdgeBlockSettings):
    """Boltz-2's sizes."""

    pair_num_heads: int = Field(4, gt=0, description="heads of the triangle attentions")
    pair_head_width: int = Field(32, gt=0, description="width of one of them")
    transition_factor: int = Field(4, gt=0, description="hidden width of a transition over its outer one")
    dropout: Rate = Field(0.25, description="on the triangle updates, shared along whole rows or columns")


class Block(base.Block):
    """Reads and enriches the edges."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.pair_track = PairTrack(
            settings.c_z,
            settings.pair_num_heads,
            settings.pair_head_width,
            settings.transition_factor,
            settings.dropout,
        )

    def forward(self, state: TrunkState) -> TrunkState:
        return state.replace(edge=self.edge_track(self.pair_track, state.edge, state.edge_mask))
