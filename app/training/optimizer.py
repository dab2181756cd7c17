"""AdamW over groups of parameters, as a recipe says; its state follows the parameters when the groups change."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from app.errors import UserError

_Decay = Annotated[float, Field(ge=0, lt=1)]


class GroupSettings(BaseModel):
    """Parameters that are trained otherwise than the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = Field("*", min_length=1, description="shell pattern over names, as in trunk.stages.0.*")
    max_dim: int | None = Field(None, ge=0, description="only of so many dimensions; 1: biases and gains, no matrices")
    lr_scale: float = Field(1.0, ge=0, description="times optimizer.lr; 0 keeps them as they are")
    weight_decay: float | None = Field(None, ge=0, description="null: optimizer.weight_decay")

    def takes(self, name: str, parameter: nn.Parameter) -> bool:
        return fnmatchcase(name, self.match) and (self.max_dim is None or parameter.dim() <= self.max_dim)


class OptimizerSettings(BaseModel):
    """AdamW (Loshchilov & Hutter 2019)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    groups: tuple[GroupSettings, ...] = Field((), description="a parameter belongs to the first that takes it")

    def values(self) -> list[dict[str, Any]]:
        """What AdamW is told of each group: of the rest first, then of `groups`."""
        rest = {"lr": self.lr, "weight_decay": self.weight_decay, "betas": self.betas, "eps": self.eps}
        return [rest, *(rest | self._own(group) for group in self.groups)]

    def _own(self, group: GroupSettings) -> dict[str, Any]:
        decay = self.weight_decay if group.weight_decay is None else group.weight_decay
        return {"lr": self.lr * group.lr_scale, "weight_decay": decay}


def group_names(model: nn.Module, settings: OptimizerSettings) -> list[list[str]]:
    """Names of a model's parameters: those that no group takes, then those of each group; in the model's order.

    Raises UserError for a group that is left without any.
    """
    found: list[list[str]] = [[] for _ in range(1 + len(settings.groups))]
    for name, parameter in model.named_parameters():
        takers = (place for place, group in enumerate(settings.groups, 1) if group.takes(name, parameter))
        found[next(takers, 0)].append(name)
    for place, names in enumerate(found[1:]):
        if not names:
            wanted = settings.groups[place].match
            raise UserError(
                f"optimizer.groups.{place}: no parameter is left for match={wanted}: names are as in"
                f" {next(model.named_parameters())[0]}, * stands for any part, and the first group that fits takes one"
            )
    return found


def parameter_order(model: nn.Module, settings: OptimizerSettings) -> list[str]:
    """Names of a model's parameters in the order by which the optimizer's state numbers them."""
    return list(chain.from_iterable(group_names(model, settings)))


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Raises UserError as `group_names` does."""
    parameters = dict(model.named_parameters())
    members = [[parameters[name] for name in names] for names in group_names(model, settings)]
    return torch.optim.AdamW([{"params": ours} | of for ours, of in zip(members, settings.values(), strict=True)])


def impose(optimizer: Any, settings: OptimizerSettings) -> None:
    """A restored optimizer brings along the settings it had; these hold from now on."""
    for group, values in zip(optimizer.param_groups, settings.values(), strict=True):
        group.update(values)


def regrouped(state: dict[str, Any], order: Sequence[str], groups: Sequence[Sequence[str]]) -> dict[str, Any]:
    """An optimizer's state dict, its parameters numbered by `order`, numbered and divided by `groups` instead."""
    number = {name: place for place, name in enumerate(order)}
    names, kept = list(chain.from_iterable(groups)), state["state"]
    moments = {place: kept[number[name]] for place, name in enumerate(names) if number[name] in kept}
    places, values = iter(range(len(names))), state["param_groups"][0]
    return {"state": moments, "param_groups": [values | {"params": [next(places) for _ in ours]} for ours in groups]}
