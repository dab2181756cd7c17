"""Attention with pair bias and a transition: a transformer over the nodes that sees the edges (AlphaFold 3, algorithm
24 with the transition of algorithm 11)."""

from pydantic import Field, model_validator

from app.blocks import base
from app.blocks.parts.tracks import NodeTrack, check_heads
from app.types import TrunkState


class Settings(base.BlockSettings):
    """Heads of 32 at the default width."""

    num_heads: int = Field(8, gt=0)
    transition_factor: int = Field(4, gt=0, description="hidden width of the transition over its outer one")

    @model_validator(mode="after")
    def _widths_fit(self):
        check_heads(self.c_s, self.num_heads)
        return self

    @property
    def reads(self) -> frozenset[base.Part]:
        return frozenset({"node", "edge"})

    @property
    def writes(self) -> frozenset[base.Part]:
        return frozenset({"node"})


class Block(base.Block):
    """Enriches the nodes, reads the edges."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.node_track = NodeTrack(settings.c_s, settings.c_z, settings.num_heads, settings.transition_factor)

    def forward(self, state: TrunkState) -> TrunkState:
        return state.replace(node=self.node_track(state.node, state.edge, state.node_mask))
