"""The one block interface: `forward(state: TrunkState) -> TrunkState`."""

from collections.abc import Callable, Set
from typing import ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from app.types import TrunkState

Part = Literal["node", "edge", "frames", "t"]
"""A part of the trunk's state that a block may read or write."""


class BlockSettings(BaseModel):
    """Sizes every block has; a block type adds its own, and refuses widths that do not fit its heads.

    What a block reads and writes follows from its settings alone, so that a stack can be checked before it is built.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    c_s: int = Field(256, gt=0, description="width of the node representation")
    c_z: int = Field(128, gt=0, description="width of the edge representation")

    @property
    def name(self) -> str:
        """The block type's name, which is that of its file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of the state on which the block's output depends."""
        raise TypeError(f"{type(self).__module__}: does not say what it reads")

    @property
    def writes(self) -> frozenset[Part]:
        """The parts of the state that the block changes; "frames" only with a backbone update."""
        raise TypeError(f"{type(self).__module__}: does not say what it writes")

    def layers(self, depth: int) -> list[Self]:
        """The settings of the blocks of one stage, `depth` of them; overridden where the last one differs."""
        return [self] * depth

    def for_readers(self, needed: Set[Part]) -> Self | None:
        """These settings, less what would have no effect where only `needed` is read of the state after the block.

        None: all of the block would be in vain. Parameters that cannot affect the output are never made.
        """
        return self if self.writes & needed else None


class EdgeBlockSettings(BlockSettings):
    """Of blocks that enrich the edges by themselves."""

    @property
    def reads(self) -> frozenset[Part]:
        return frozenset({"edge"})

    @property
    def writes(self) -> frozenset[Part]:
        return frozenset({"edge"})


class Block(nn.Module):
    """A layer of a trunk. It enriches some of node, edge and frames, and passes the rest through.

    Blocks that write the frames are SE(3)-equivariant, all others invariant.
    """

    Settings: ClassVar[type[BlockSettings]] = BlockSettings
    recomputes_edge_track = False  # set by a stage with `checkpoint: edge`

    def __init__(self, settings: BlockSettings):
        super().__init__()
        self.settings = settings

    @property
    def updates_backbone(self) -> bool:
        return "frames" in self.settings.writes

    def edge_track(self, update: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """The new edges, `update(*given)`: every block makes them by way of this.

        Where the stage says so, activations inside are dropped and made again in the backward pass (Chen et al. 2016).
        """
        if self.recomputes_edge_track and torch.is_grad_enabled():
            return checkpoint(update, *given, use_reentrant=False)
        return update(*given)

    def forward(self, state: TrunkState) -> TrunkState:
        raise TypeError(f"{type(self).__module__} has no forward")
