"""Double attention over the edges, which may be told the time, and a pair transition."""

from pydantic import Field
from torch import Tensor, nn

from app.blocks import base
from app.blocks.parts.adaptive_norm import AdaptiveLayerNorm
from app.blocks.parts.dropout import Dropout
from app.blocks.parts.gated_transition import GatedTransition
from app.blocks.parts.linear import Linear
from app.ops.double_attention import double_attention
from app.phase import Rate
from app.types import TrunkState


class Settings(base.EdgeBlockSettings):
    """By default both widths are a quarter of c_z=128, the share that the paper takes."""

    num_descriptors: int = Field(32, gt=1, description="attention maps, each of which gathers one global descriptor")
    descriptor_width: int = Field(32, gt=0)
    transition_factor: int = Field(4, gt=0, description="hidden width of the pair transition, in c_z")
    dropout: Rate = Field(0.0, description="on what the attention adds to the edges")
    condition_on_t: bool = Field(False, description="the times scale and shift the normed edges")

    @property
    def reads(self) -> frozenset[base.Part]:
        return frozenset({"edge", "t"} if self.condition_on_t else {"edge"})


class Block(base.Block):
    """Enriches edge from edge: every pair sees all others, in time and memory of N^2 (A2-Nets, Chen et al. 2018)."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        c_z, num_descriptors = settings.c_z, settings.num_descriptors
        self.norm = AdaptiveLayerNorm(c_z) if settings.condition_on_t else nn.LayerNorm(c_z)
        self.features = Linear(c_z, settings.descriptor_width, bias=False)
        self.gather = Linear(c_z, num_descriptors, bias=False)  # its softmax over pairs would cancel a bias
        self.distribute = Linear(c_z, num_descriptors)
        self.out = Linear(settings.descriptor_width, c_z, init="zero", bias=False)
        self.dropout = Dropout(settings.dropout)
        self.transition = GatedTransition(c_z, settings.transition_factor)

    def forward(self, state: TrunkState) -> TrunkState:
        return state.replace(edge=self.edge_track(self._update, state.edge, state.edge_mask, state.t))

    def _update(self, edge: Tensor, mask: Tensor, t: Tensor) -> Tensor:
        normed = self.norm(edge, t) if self.settings.condition_on_t else self.norm(edge)
        maps = self.gather(normed), self.distribute(normed)
        attended = double_attention(self.features(normed), *maps, mask)
        edge = edge + self.dropout(self.out(attended))
        return edge + self.transition(edge) * mask[..., None]
