"""Settings of blocks that enrich the nodes, and move the frames if told to, from nodes and frames alone."""

from collections.abc import Set
from typing import Self

from pydantic import Field

from app.blocks import base


class NodeFramesSettings(base.BlockSettings):
    update_backbone: bool = Field(True, description="the block moves the frames")

    @property
    def reads(self) -> frozenset[base.Part]:
        return frozenset({"node", "frames"})

    @property
    def writes(self) -> frozenset[base.Part]:
        return frozenset({"node", "frames"} if self.update_backbone else {"node"})

    def for_readers(self, needed: Set[base.Part]) -> Self | None:
        useful = {"update_backbone": self.update_backbone and "frames" in needed}
        return super(NodeFramesSettings, self.model_copy(update=useful)).for_readers(needed)
