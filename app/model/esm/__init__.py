"""The ESM combiner: a frozen protein language model reads the noisy tokens and enriches node and edge."""

from collections.abc import Set
from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import nn

from app.blocks.base import Part
from app.config.validate import parse
from app.model.stack import Sizes


class NoEsm(BaseModel):
    """No language model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["none"] = "none"


def completed_esm(config: dict, sizes: Sizes) -> dict:
    """The config with every setting of the combiner, those of its stages included. Raises UserError."""
    return parse(NoEsm, config, where="model.esm").model_dump(mode="json")


def build_esm(config: dict, sizes: Sizes, needed: Set[Part]) -> nn.Module | None:
    """The combiner, or None. needed: what the trunk reads of the state. Raises UserError."""
    parse(NoEsm, config, where="model.esm")
    return None
