"""Triangle multiplications and a transition: the cheap end of the pair updates (AlphaFold 3, algorithms 12 and 13)."""

from pydantic import Field
from torch import Tensor

from app.blocks import base
from app.blocks.parts.gated_transition import GatedTransition
from app.blocks.parts.triangle_modules import TriangleMultiplications
from app.phase import Rate
from app.types import TrunkState


class Settings(base.EdgeBlockSettings):
    """Boltz-2's sizes."""

    transition_factor: int = Field(4, gt=0, description="hidden width of the transition over its outer one")
    dropout: Rate = Field(0.25, description="on the triangle updates, shared along whole rows")


class Block(base.Block):
    """Reads and enriches the edges: outgoing, incoming, transition."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.multiplication = TriangleMultiplications(settings.c_z, settings.dropout)
        self.transition = GatedTransition(settings.c_z, settings.transition_factor)

    def forward(self, state: TrunkState) -> TrunkState:
        return state.replace(edge=self.edge_track(self._update, state.edge, state.edge_mask))

    def _update(self, edge: Tensor, mask: Tensor) -> Tensor:
        edge = self.multiplication(edge, mask)
        return edge + self.transition(edge) * mask[..., None]
