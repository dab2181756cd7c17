"""Sequence heads: one a file, `TrunkState -> logits`, chosen by `model.head.kind`.

A file here has `Settings` and `Head`; `HeadKind` lists them. `Head.needs` is what it reads of the trunk's state.
"""

import enum
import importlib
from types import ModuleType

from pydantic import BaseModel
from torch import nn

from app.config.validate import parse
from app.errors import UserError
from app.model.stack import Sizes


class HeadKind(enum.Enum):
    MLP = "mlp"
    REFINED = "refined"
    NONE = "none"


def build_head(config: dict, sizes: Sizes, num_tokens: int) -> nn.Module:
    """The head named by config["kind"], with the other keys as its settings. Raises UserError."""
    module, settings = _parsed(config)
    return module.Head(settings, sizes, num_tokens)


def completed_head(config: dict, sizes: Sizes) -> dict:
    """The config with every setting of the head, those of its stages included. Raises UserError."""
    _, settings = _parsed(config)
    if hasattr(settings, "completed"):
        settings = settings.completed(sizes)
    return {"kind": config["kind"], **settings.model_dump(mode="json")}


def _parsed(config: dict) -> tuple[ModuleType, BaseModel]:
    try:
        kind = HeadKind(config.get("kind"))
    except ValueError:
        known = ", ".join(kind.value for kind in HeadKind)
        raise UserError(
            f"model.head.kind: {config.get('kind')!r} is not a sequence head; choose one of {known}"
        ) from None
    module = importlib.import_module(f"app.model.heads.{kind.value}")
    return module, parse(module.Settings, {k: v for k, v in config.items() if k != "kind"}, where="model.head")
