"""The recipe: everything that defines a run, as plain data that is checked here and stored in checkpoints."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.config.keys import refuse_too_deep
from app.config.validate import parse
from app.data.steps import StepSettings
from app.devices import DeviceName
from app.flow.settings import FlowSettings
from app.losses.settings import LossSettings
from app.model.codesign import ModelSettings
from app.ops.settings import KernelSettings
from app.sampling.settings import SamplerSettings
from app.training.optimizer import OptimizerSettings
from app.training.schedule import ScheduleSettings
from app.training.validation_settings import ValidationSettings


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainerSettings(_Settings):
    """What Lightning's Trainer is given."""

    accelerator: DeviceName | Literal["gpu"] = "auto"
    devices: int | Literal["auto"] = 1
    num_nodes: int = Field(1, gt=0)
    strategy: str = Field("auto", description="auto, ddp, fsdp, or another of Lightning's")
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    max_steps: int = Field(-1, ge=-1, description="optimizer steps; -1: no limit")
    max_epochs: int = Field(-1, ge=-1, description="-1: no limit")
    accumulate: int = Field(1, gt=0, description="batches an optimizer step, on each device")
    residues_per_step: int | None = Field(
        None, gt=0, description="in place of accumulate: as many batches as hold so many residues, on all devices"
    )
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient; null: no clipping")
    checkpoint_every: int = Field(1000, gt=0, description="optimizer steps between checkpoints")
    keep_checkpoints: int | None = Field(3, gt=0, description="how many of them stay, the newest; null: all")
    stop_after_skipped: int = Field(20, gt=0, description="optimizer steps skipped in a row that end the run")
    log_every: int = Field(10, gt=0, description="optimizer steps between lines of metrics")
    validate_every: int | None = Field(1000, gt=0, description="optimizer steps between validations; null: never")
    deterministic: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.residues_per_step is not None and self.accumulate != 1:
            raise ValueError("accumulate and residues_per_step: give one, the other stays 1 or null")
        return self

    @property
    def steps(self) -> StepSettings:
        """What makes an optimizer step."""
        return StepSettings(batches=self.accumulate, residues=self.residues_per_step)

    @field_validator("devices")
    @classmethod
    def _some_or_all(cls, devices: int | str) -> int | str:
        if isinstance(devices, int) and devices < 1 and devices != -1:
            raise ValueError("give a number of devices, or auto for all that there are")
        return devices

    @field_validator("strategy")
    @classmethod
    def _starts_processes(cls, strategy: str) -> str:
        if strategy.endswith(("spawn", "fork", "notebook")):
            raise ValueError("its processes are copies of one that runs already: choose ddp or fsdp")
        return strategy

    @field_validator("max_steps", "max_epochs")
    @classmethod
    def _some(cls, limit: int) -> int:
        if limit == 0:
            raise ValueError("0 is no training; -1 is no limit")
        return limit


class EmaSettings(_Settings):
    """A moving average of the weights."""

    decay: float | None = Field(None, gt=0, lt=1, description="what a step leaves of the average; null: no average")


class LoggerSettings(_Settings):
    """metrics.csv is always written; another logger may be added."""

    kind: Literal["csv", "tensorboard", "wandb"] = "csv"
    project: str = Field("trunkline", description="wandb's project")


class CallbacksSettings(_Settings):
    progress_bar: bool = True
    curves: bool = Field(True, description="draw curves.png")
    report: bool = Field(True, description="write report.html")


class Recipe(_Settings):
    """A composed and resolved recipe. `data` is checked by the data module, by its kind."""

    name: str
    seed: int = Field(123, ge=0)
    model: ModelSettings
    flow: FlowSettings = FlowSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    ema: EmaSettings = EmaSettings()
    sampler: SamplerSettings = SamplerSettings()
    data: dict[str, Any]
    validation: ValidationSettings = ValidationSettings()
    trainer: TrainerSettings = TrainerSettings()
    kernels: KernelSettings = KernelSettings()
    callbacks: CallbacksSettings = CallbacksSettings()
    logger: LoggerSettings = LoggerSettings()
    compile: bool = Field(False, description="the model by torch.compile, for any batch and length at once")
    cuda_graph: bool = Field(False, description="launch the passes of batches whose shape comes again together")

    @model_validator(mode="after")
    def _schedule_has_an_end(self):
        end = self.schedule.total_steps or self.trainer.max_steps
        if self.schedule.kind == "cosine" and end <= self.schedule.warmup_steps:
            raise ValueError(
                "schedule.kind=cosine needs an end beyond schedule.warmup_steps: give trainer.max_steps or"
                " schedule.total_steps"
            )
        return self


OF_THE_MACHINE = {
    "kernels": "kernels=auto takes what there is here",
    "compile": "compile=false runs without the compiler",
    "cuda_graph": "cuda_graph=false launches kernels one by one",
}
"""Sections that say how a machine computes, not what, each with what to type so that it serves on every machine. A
checkpoint keeps them for the run that is resumed; nobody else reads them there: others may lack what they name."""


def parse_recipe(plain: dict) -> Recipe:
    """A plain dict as a checked recipe. Raises UserError naming the key at fault."""
    refuse_too_deep(plain, "the recipe")
    return parse(Recipe, plain)
