"""Multiflow's sequence head: three linear layers with ReLU."""

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from app.blocks.base import Part
from app.model.stack import Sizes
from app.types import TrunkState


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Head(nn.Module):
    """Reads the node representation: [B, N, c_s] -> logits [B, N, num_tokens]."""

    needs: frozenset[Part] = frozenset({"node"})

    def __init__(self, settings: Settings, sizes: Sizes, num_tokens: int):
        super().__init__()
        c_s = sizes["c_s"]
        self.layers = nn.Sequential(
            nn.Linear(c_s, c_s), nn.ReLU(), nn.Linear(c_s, c_s), nn.ReLU(), nn.Linear(c_s, num_tokens)
        )

    def forward(self, state: TrunkState) -> Tensor:
        return self.layers(state.node)
