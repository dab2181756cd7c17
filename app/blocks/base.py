"""The one block interface: `forward(state: TrunkState) -> TrunkState`."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from app.types import TrunkState


class BlockSettings(BaseModel):
    """Sizes every block has; a block type adds its own, and refuses widths that do not fit its heads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    c_s: int = Field(256, gt=0, description="width of the node representation")
    c_z: int = Field(128, gt=0, description="width of the edge representation")


class Block(nn.Module):
    """A layer of a trunk. It enriches some of node, edge and frames, and passes the rest through.

    Blocks with `updates_backbone` are SE(3)-equivariant, all others invariant.
    """

    Settings: ClassVar[type[BlockSettings]] = BlockSettings
    updates_backbone = False

    def __init__(self, settings: BlockSettings):
        super().__init__()

    @classmethod
    def stage(cls, settings: BlockSettings, depth: int) -> list["Block"]:
        """The blocks of one stage, `depth` of them; overridden where the last one differs."""
        return [cls(settings) for _ in range(depth)]

    def forward(self, state: TrunkState) -> TrunkState:
        raise TypeError(f"{type(self).__name__} has no forward")
