"""The trunk: a list of stages, each a number of blocks of one type. It knows no block type by name."""

from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from app.blocks import BlockSettings, block_class, block_settings
from app.errors import UserError
from app.types import TrunkState


class StageSettings(BaseModel):
    """`{block: ipa, depth: 8, ...}`: the other keys are the block type's settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    block: str
    depth: int = Field(1, gt=0)

    @property
    def overrides(self) -> dict:
        return dict(self.model_extra or {})


class TrunkSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: list[StageSettings] = Field(min_length=1)

    @field_validator("stages")
    @classmethod
    def _complete(cls, stages: list[StageSettings]) -> list[StageSettings]:
        """Every stage with all settings of its block type, so that a checkpoint outlives a change of the defaults."""
        return [_completed(stage, where=f"model.trunk.stages.{index}") for index, stage in enumerate(stages)]


def _completed(stage: StageSettings, where: str) -> StageSettings:
    widths = set(BlockSettings.model_fields)
    if widths & set(stage.overrides):
        raise UserError(
            f"{where}: {', '.join(sorted(widths))} are those of the whole model, set model.c_s and model.c_z"
        )
    settings = block_settings(stage.block, stage.overrides, where).model_dump(exclude=widths)
    return StageSettings(block=stage.block, depth=stage.depth, **settings)


class Trunk(nn.Module):
    """Stages run one after the other. Raises UserError where none of them updates the backbone."""

    def __init__(self, settings: TrunkSettings, c_s: int, c_z: int):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(_build(stage, c_s, c_z, where=f"model.trunk.stages.{index}"))
            for index, stage in enumerate(settings.stages)
        )
        if not any(block.updates_backbone for stage in self.stages for block in stage):
            raise UserError(
                "model.trunk.stages: no stage updates the backbone, so frames would never move; "
                "add a stage such as {block: ipa, depth: 2, update_backbone: true}"
            )

    def forward(self, state: TrunkState) -> TrunkState:
        for stage in self.stages:
            for block in stage:
                state = block(state)
        return state


def _build(stage: StageSettings, c_s: int, c_z: int, where: str) -> list[nn.Module]:
    cls = block_class(stage.block)
    return cls.stage(block_settings(stage.block, {"c_s": c_s, "c_z": c_z, **stage.overrides}, where), stage.depth)
