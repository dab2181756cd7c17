"""No sequence head: a model of structure only, through which tokens pass."""

from pydantic import BaseModel, ConfigDict
from torch import nn

from app.blocks.base import Part
from app.model.stack import Sizes
from app.types import TrunkState


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Head(nn.Module):
    """Reads nothing and estimates no sequence."""

    needs: frozenset[Part] = frozenset()

    def __init__(self, settings: Settings, sizes: Sizes, num_tokens: int):
        super().__init__()

    def forward(self, state: TrunkState) -> None:
        return None
