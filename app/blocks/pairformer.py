"""The pairformer block (Boltz-2's variant of AlphaFold 3, algorithm 17)."""

from collections.abc import Set
from typing import Self

from pydantic import Field, model_validator

from app.blocks import base, pairformer_noseq
from app.blocks.parts.tracks import NodeTrack, check_heads
from app.types import TrunkState


class Settings(pairformer_noseq.Settings):
    """Boltz-2's sizes, but for the nodes, which share their width among 8 heads."""

    num_heads: int = Field(8, gt=0, description="heads of the attention over the nodes")
    update_node: bool = Field(True, description="the block updates the nodes; off where none reads them after")

    @model_validator(mode="after")
    def _widths_fit(self):
        check_heads(self.c_s, self.num_heads)
        return self

    @property
    def reads(self) -> frozenset[base.Part]:
        return self.writes

    @property
    def writes(self) -> frozenset[base.Part]:
        return frozenset({"node", "edge"} if self.update_node else {"edge"})

    def for_readers(self, needed: Set[base.Part]) -> Self | None:
        """The edges are never in vain: the nodes read them."""
        useful = self.model_copy(update={"update_node": self.update_node and "node" in needed})
        return super(Settings, useful).for_readers(needed)


class Block(pairformer_noseq.Block):
    """Enriches the edges, then the nodes (`update_node`) by the new edges."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.node_track = None
        if settings.update_node:
            self.node_track = NodeTrack(settings.c_s, settings.c_z, settings.num_heads, settings.transition_factor)

    def forward(self, state: TrunkState) -> TrunkState:
        state = super().forward(state)
        if self.node_track is None:
            return state
        return state.replace(node=self.node_track(state.node, state.edge, state.node_mask))
