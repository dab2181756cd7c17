"""The trunk: the stack that moves the frames, with recycling."""

from collections.abc import Set

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from app.blocks.base import Part
from app.errors import UserError
from app.model.stack import Sizes, Stack, Stage, completed, plan
from app.phase import ByPhase, Phased
from app.types import TrunkState

WHERE = "model.trunk.stages"
MOST_RECYCLES = 100


class TrunkSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: list[Stage] = Field(min_length=1)
    num_recycles: int | ByPhase[int] = Field(
        0, description="further passes that start from the representations of the pass before"
    )

    def completed(self, sizes: Sizes) -> "TrunkSettings":
        return self.model_copy(update={"stages": completed(self.stages, sizes, WHERE)})


class Recycle(nn.Module):
    """What the pass before wrote of node and edge, normed and added (AlphaFold 2, algorithm 32; no positions)."""

    def __init__(self, sizes: Sizes, parts: Set[Part]):
        super().__init__()
        self.node = nn.LayerNorm(sizes["c_s"]) if "node" in parts else None
        self.edge = nn.LayerNorm(sizes["c_z"]) if "edge" in parts else None

    def forward(self, state: TrunkState, previous: TrunkState | None) -> TrunkState:
        """previous: None in the first pass, which takes zeros in its place."""

        def add(norm: nn.LayerNorm | None, now: Tensor | None, before: Tensor | None, mask: Tensor | None):
            if norm is None:
                return now
            return now + norm(torch.zeros_like(now) if before is None else before) * mask[..., None]

        before = (None, None) if previous is None else (previous.node, previous.edge)
        node = add(self.node, state.node, before[0], state.node_mask)
        return state.replace(node=node, edge=add(self.edge, state.edge, before[1], state.edge_mask))


class Trunk(Stack, Phased):
    """Stages run one after the other, `num_recycles` times more than once; gradients go through the last pass.

    Every pass starts from the frames that came in. needed: what is read of the state after the trunk, besides the
    frames. Raises UserError where no stage updates the backbone, and as `plan` does.
    """

    def __init__(self, settings: TrunkSettings, sizes: Sizes, needed: Set[Part]):
        planned = plan(settings.stages, sizes, needed | {"frames"}, WHERE)
        if "frames" not in planned.writes:
            raise UserError(
                f"{WHERE}: no stage updates the backbone, so frames would never move; "
                "add a stage such as {block: ipa, depth: 2, update_backbone: true}"
            )
        super().__init__(planned)
        self.needs = planned.needs
        self.num_recycles = settings.num_recycles
        self.recycle = Recycle(sizes, planned.writes & planned.needs) if _recycles(settings.num_recycles) else None

    def forward(self, state: TrunkState) -> TrunkState:
        if self.recycle is None:
            return super().forward(state)
        previous = None
        for _ in range(self.now(self.num_recycles)):
            with torch.no_grad():
                previous = super().forward(self.recycle(state, previous))
        return super().forward(self.recycle(state, previous))


def _recycles(number: int | ByPhase[int]) -> bool:
    """Raises UserError for a number that cannot be, or that leaves untrained what inference uses."""
    train, infer = (number.train, number.infer) if isinstance(number, ByPhase) else (number, number)
    if not 0 <= min(train, infer) <= max(train, infer) <= MOST_RECYCLES:
        raise UserError(f"model.trunk.num_recycles={number}: give 0 to {MOST_RECYCLES}")
    if infer and not train:
        raise UserError(
            f"model.trunk.num_recycles: {infer} in inference but 0 in training: what joins the passes would never be"
            " trained; recycle in training too"
        )
    return bool(train)
