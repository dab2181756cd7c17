"""A stack: a list of stages, each a number of blocks of one type, or stages repeated. It knows no block type by name.

The trunk is one; the ESM combiner and the sequence head refine with one.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from app.blocks import BlockSettings, block_class, block_settings
from app.blocks.base import Part
from app.errors import UserError
from app.types import Frames, TrunkState

Sizes = Mapping[str, int | None]
"""c_s and c_z of the model; c_z is None where it keeps no edge representation."""


Checkpoint = bool | Literal["edge"]


class StageSettings(BaseModel):
    """`{block: ipa, depth: 8, ...}`: the other keys are the block type's settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    block: str
    depth: int = Field(1, gt=0)
    share_weights: bool = Field(False, description="one block, run `depth` times")
    checkpoint: Checkpoint = Field(
        False, description="recompute activations in the backward pass instead of keeping them; edge: of the edges only"
    )

    @property
    def overrides(self) -> dict:
        return dict(self.model_extra or {})


class RepeatSettings(BaseModel):
    """`{repeat: 4, stages: [...]}`: the stages one after the other, that many times; nests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repeat: int = Field(gt=0)
    stages: list["Stage"] = Field(min_length=1)
    share_weights: bool = Field(False, description="the same weights every time")

    @model_validator(mode="before")
    @classmethod
    def _is_no_block(cls, data: Any) -> Any:
        """Told here, since a stage of the other kind knows other keys."""
        if isinstance(data, dict) and (odd := [str(key) for key in data if key not in cls.model_fields]):
            raise ValueError(
                f"{', '.join(odd)} unknown beside repeat: such a stage has {', '.join(cls.model_fields)}; block, depth"
                " and a block's settings belong to the stages in it"
            )
        return data


def _kind_of(stage: Any) -> str:
    """A name that is no key of a stage, so that error messages can leave it out of the path."""
    repeats = "repeat" in stage if isinstance(stage, dict) else isinstance(stage, RepeatSettings)
    return "(repeat)" if repeats else "(block)"


Stage = Annotated[
    Annotated[StageSettings, Tag("(block)")] | Annotated[RepeatSettings, Tag("(repeat)")], Discriminator(_kind_of)
]


MOST_BLOCKS = 1000
"""Runs of a block in a stack. A few lines of nested repeats could mean billions."""


def completed(stages: Sequence[Stage], sizes: Sizes, where: str) -> list[Stage]:
    """Every stage with all settings of its block type, so that a checkpoint outlives a change of the defaults.

    where: the dotted key of the list. Raises UserError for an unknown block type, for settings that do not fit, and for
    more than `MOST_BLOCKS`.
    """
    if (count := _count(stages)) > MOST_BLOCKS:
        raise UserError(f"{where}: {count} blocks are more than anyone trains: give at most {MOST_BLOCKS}")
    return [_completed(stage, sizes, f"{where}.{index}") for index, stage in enumerate(stages)]


def _count(stages: Sequence[Stage]) -> int:
    return sum(
        stage.repeat * _count(stage.stages) if isinstance(stage, RepeatSettings) else stage.depth for stage in stages
    )


def _completed(stage: Stage, sizes: Sizes, where: str) -> Stage:
    if isinstance(stage, RepeatSettings):
        return stage.model_copy(update={"stages": completed(stage.stages, sizes, f"{where}.stages")})
    settings = _settings(stage, sizes, where).model_dump(exclude=set(BlockSettings.model_fields))
    own = {name: getattr(stage, name) for name in StageSettings.model_fields}
    return StageSettings(**own, **settings)


def _settings(stage: StageSettings, sizes: Sizes, where: str) -> BlockSettings:
    if BlockSettings.model_fields.keys() & stage.overrides:
        widths = ", ".join(BlockSettings.model_fields)
        raise UserError(f"{where}: {widths} are those of the whole model, set model.c_s and model.c_z")
    known = {name: size for name, size in sizes.items() if size is not None}
    settings = block_settings(stage.block, {**known, **stage.overrides}, where)
    if sizes.get("c_z", 0) is None and "edge" in settings.reads | settings.writes:
        raise UserError(
            f"{where}: {stage.block} needs the edge representation, and model.c_z=null keeps none: choose another"
            " block, or give model.c_z a width"
        )
    return settings


@dataclass(frozen=True)
class Plan:
    """A stack before it is built: what its layers are, and what they depend on."""

    stages: list["PlannedStage"]
    needs: frozenset[Part]  # parts of the state that matter at the stack's entry
    writes: frozenset[Part]
    asked: frozenset[Part]  # what the settings would have it write, whether anything reads it or not


@dataclass(frozen=True)
class PlannedStage:
    layers: list["tuple[str, BlockSettings] | Plan"]  # blocks by type, or repeated stages
    times: int  # how often they are run; more than once where weights are shared
    checkpoint: Checkpoint


def plan(stages: Sequence[Stage], sizes: Sizes, needed: Set[Part], where: str) -> Plan:
    """The layers of a stack, less what would be in vain where only `needed` is read after it.

    Raises UserError, as `completed` does, and for a stage of which nothing reads what it writes.
    """
    whole = Plan([], frozenset(needed), frozenset(), frozenset())
    for index, stage in reversed(list(enumerate(stages))):
        one = _repeated if isinstance(stage, RepeatSettings) else _blocks
        done = one(stage, sizes, whole.needs, f"{where}.{index}")
        whole = Plan(done.stages + whole.stages, done.needs, done.writes | whole.writes, done.asked | whole.asked)
    return whole


def plan_of_refinement(stages: Sequence[Stage], sizes: Sizes, needed: Set[Part], where: str) -> Plan:
    """The plan of a stack that enriches representations. Raises UserError as `plan` does, and where it moves frames."""
    planned = plan(stages, sizes, needed, where)
    if "frames" in planned.asked:
        raise UserError(f"{where}: only the trunk moves frames: set update_backbone: false there")
    return planned


def _blocks(stage: StageSettings, sizes: Sizes, needed: Set[Part], where: str) -> Plan:
    times = stage.depth if stage.share_weights else 1
    layers = _settings(stage, sizes, where).layers(stage.depth)[: stage.depth // times]
    if stage.checkpoint == "edge" and not any("edge" in settings.writes for settings in layers):
        raise UserError(
            f"{where}: checkpoint: edge recomputes what updates the edges, and {stage.block} updates none there: set"
            " checkpoint: true or false"
        )
    kept: list[tuple[str, BlockSettings]] = []
    writes: frozenset[Part] = frozenset()
    asked: frozenset[Part] = frozenset()
    for settings in reversed(layers):
        useful = settings.for_readers(needed)
        if useful and times > 1:  # then its own next run reads what it writes
            useful = settings.for_readers(needed | useful.reads)
        if useful is None:
            parts = " and ".join(sorted(settings.writes))
            raise UserError(
                f"{where}: nothing reads the {parts} that {stage.block} writes there: leave the stage out, or put a"
                " block that reads them after it"
            )
        kept.insert(0, (stage.block, useful))
        needed, writes, asked = needed | useful.reads, writes | useful.writes, asked | settings.writes
    return Plan([PlannedStage(kept, times, stage.checkpoint)], frozenset(needed), writes, asked)


def _repeated(stage: RepeatSettings, sizes: Sizes, needed: Set[Part], where: str) -> Plan:
    where = f"{where}.stages"
    times = stage.repeat if stage.share_weights else 1
    layers = [plan(stage.stages, sizes, _needed_by_runs(times, stage.stages, sizes, needed, where), where)]
    for _ in range(stage.repeat // times - 1):
        layers.insert(0, plan(stage.stages, sizes, layers[0].needs, where))
    asked, writes = (
        frozenset().union(*parts) for parts in zip(*((one.asked, one.writes) for one in layers), strict=True)
    )
    return Plan([PlannedStage(layers, times, checkpoint=False)], layers[0].needs, writes, asked)


def _needed_before(stages: Sequence[Stage], sizes: Sizes, needed: Set[Part], where: str) -> frozenset[Part]:
    """What matters before stages after which `needed` is read; blocks of which nothing is read are passed over."""
    for index, stage in reversed(list(enumerate(stages))):
        here = f"{where}.{index}"
        if isinstance(stage, RepeatSettings):
            needed = _needed_by_runs(stage.repeat + 1, stage.stages, sizes, needed, f"{here}.stages")
        elif useful := _settings(stage, sizes, here).for_readers(needed):
            needed = needed | useful.reads
    return frozenset(needed)


def _needed_by_runs(
    times: int, stages: Sequence[Stage], sizes: Sizes, needed: Set[Part], where: str
) -> frozenset[Part]:
    """What is read after any of so many runs of the stages: `needed` after the last, and what the next one reads."""
    found = frozenset(needed)
    for _ in range(times - 1):
        more = found | _needed_before(stages, sizes, found, where)
        if more == found:
            break
        found = more
    return found


class Layers(nn.ModuleList):
    """The layers of one stage, run in order."""

    def __init__(self, planned: PlannedStage):
        super().__init__(_layer(layer, planned.checkpoint) for layer in planned.layers)
        self.times, self.recomputes = planned.times, planned.checkpoint is True

    def forward(self, state: TrunkState) -> TrunkState:
        for _ in range(self.times):
            for layer in self:
                state = _recomputed(layer, state) if self.recomputes and torch.is_grad_enabled() else layer(state)
        return state


def single_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of all stacks in a model that are no stacks themselves: what `fully_shard` gathers one at a time."""
    for layers in list(model.modules()):
        for layer in layers if isinstance(layers, Layers) else ():
            if not isinstance(layer, Stack):
                yield layer


def recomputes(model: nn.Module) -> bool:
    """Whether any stage of a model makes activations again in the backward pass."""
    names = "recomputes", "recomputes_edge_track"  # of `Layers`, and of blocks
    return any(getattr(part, name, False) for part in model.modules() for name in names)


def _layer(planned: tuple[str, BlockSettings] | Plan, checkpoint: Checkpoint) -> nn.Module:
    if isinstance(planned, Plan):
        return Stack(planned)
    name, settings = planned
    block = block_class(name)(settings)
    block.recomputes_edge_track = checkpoint == "edge"
    return block


class Stack(nn.Module):
    """Stages run one after the other: TrunkState -> TrunkState."""

    def __init__(self, planned: Plan):
        super().__init__()
        self.stages = nn.ModuleList(Layers(stage) for stage in planned.stages)

    def forward(self, state: TrunkState) -> TrunkState:
        for stage in self.stages:
            state = stage(state)
        return state


def _recomputed(layer: nn.Module, state: TrunkState) -> TrunkState:
    """The layer's output, its activations dropped and made again in the backward pass (Chen et al. 2016).

    Tensors are handed over one by one: torch finds devices, and with them the generators to restore, among arguments.
    """

    def run(node: Tensor, edge: Tensor | None, rotmats: Tensor, trans: Tensor) -> tuple[Tensor | None, ...]:
        after = layer(state.replace(node=node, edge=edge, frames=Frames(rotmats, trans)))
        return after.node, after.edge, after.frames.rotmats, after.frames.trans

    given = state.node, state.edge, state.frames.rotmats, state.frames.trans
    node, edge, rotmats, trans = checkpoint(run, *given, use_reentrant=False)
    return state.replace(node=node, edge=edge, frames=Frames(rotmats, trans))
