"""The learning rate over a run: a factor on every group's rate, a function of the optimizer step alone."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch.optim.lr_scheduler import LambdaLR


class ScheduleSettings(BaseModel):
    """A linear warm-up, then a constant rate or half a cosine (Loshchilov & Hutter 2017, without restarts)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="optimizer steps over which the rate rises; the last has all of it")
    total_steps: int | None = Field(None, gt=0, description="where the cosine ends; null: at trainer.max_steps")
    final: float = Field(0.0, ge=0, le=1, description="share of the rate at the cosine's end, and after it")

    @model_validator(mode="after")
    def _has_room(self):
        if self.kind == "cosine" and self.total_steps is not None and self.warmup_steps >= self.total_steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} leaves nothing of total_steps={self.total_steps}")
        return self

    @property
    def is_flat(self) -> bool:
        return self.kind == "constant" and not self.warmup_steps

    def idle(self) -> dict[str, str]:
        """Keys of the recipe that do nothing under the others, each with the reason."""
        why = f"schedule.kind={self.kind} has no end"
        return {} if self.kind == "cosine" else dict.fromkeys(("schedule.total_steps", "schedule.final"), why)


def factor(settings: ScheduleSettings, max_steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by in each step, counted from 0. max_steps: the run's, for `total_steps`."""
    warmup, total = settings.warmup_steps, settings.total_steps or max_steps

    def at(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if settings.kind == "constant":
            return 1.0
        gone = min(1.0, (step - warmup) / max(1, total - warmup))
        return settings.final + (1 - settings.final) * (1 + math.cos(math.pi * gone)) / 2

    return at


def scheduled(optimizer: torch.optim.Optimizer, settings: ScheduleSettings, max_steps: int) -> Any:
    """What Lightning's `configure_optimizers` is to return."""
    if settings.is_flat:
        return optimizer
    scheduler = LambdaLR(optimizer, factor(settings, max_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def continue_at(scheduler: LambdaLR, step: int) -> None:
    """Go on from a step by the optimizer's present rates, whatever rates and schedule the checkpoint had."""
    groups = scheduler.optimizer.param_groups
    scheduler.base_lrs = [group["lr"] for group in groups]
    scheduler.last_epoch = step
    for group, rate, at in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        group["initial_lr"], group["lr"] = rate, rate * at(step)
    scheduler._last_lr = [group["lr"] for group in groups]
