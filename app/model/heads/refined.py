"""A stack of blocks on the predicted frames, then Multiflow's sequence head."""

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from app.model.heads import mlp
from app.model.stack import Sizes, Stack, Stage, completed, plan_of_refinement
from app.types import TrunkState

WHERE = "model.head.stages"


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: list[Stage] = Field(min_length=1)

    def completed(self, sizes: Sizes) -> "Settings":
        return self.model_copy(update={"stages": completed(self.stages, sizes, WHERE)})


class Head(mlp.Head):
    """Logits [B, N, num_tokens] of the refined node representation. Raises UserError for a stage that moves frames."""

    def __init__(self, settings: Settings, sizes: Sizes, num_tokens: int):
        super().__init__(mlp.Settings(), sizes, num_tokens)
        planned = plan_of_refinement(settings.stages, sizes, {"node"}, WHERE)
        self.needs = planned.needs
        self.stack = Stack(planned)

    def forward(self, state: TrunkState) -> Tensor:
        return super().forward(self.stack(state))
