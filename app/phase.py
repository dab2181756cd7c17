"""Whether a model is training right now, and values that depend on it: dropout rates, numbers of recycles.

A run has one `Phase`, kept by the callback `app.training.kernel_environment.KernelEnvironment` and shared by all
modules of its model. Without a Trainer there is none, and `module.training` alone decides. With one, both must say so:
`model.eval()` in the middle of a training step and validation that leaves the model in training mode are inference
alike.
"""

from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

Value = TypeVar("Value")


@dataclass
class Phase:
    """What a run is doing; one object a run."""

    is_training: bool = False


class ByPhase(BaseModel, Generic[Value]):
    """`{train: 0.25, infer: 0.0}`: a setting that differs between training and inference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Value
    infer: Value


_Rate = Annotated[float, Field(ge=0, lt=1)]
Rate = _Rate | ByPhase[_Rate]
"""A dropout rate; a plain number is meant for training, and nothing is dropped in inference."""


class Phased(nn.Module):
    """A module that does one thing in training and another in inference."""

    run_phase: Phase | None = None  # set by the callback while a Trainer runs

    @property
    def is_training(self) -> bool:
        return self.training and (self.run_phase is None or self.run_phase.is_training)

    def now(self, value: Value | ByPhase[Value]) -> Value:
        """The value for the present phase; a plain one holds in both."""
        if not isinstance(value, ByPhase):
            return value
        return value.train if self.is_training else value.infer
