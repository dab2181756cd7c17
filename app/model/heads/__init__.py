"""Sequence heads: one a file, `TrunkState -> logits`, chosen by `model.head.kind`.

A file here has `Settings` and `Head`; `HeadKind` lists them.
"""

import enum
import importlib

from torch import nn

from app.config.validate import parse
from app.errors import UserError


class HeadKind(enum.Enum):
    MLP = "mlp"


def build_head(config: dict, c_s: int, num_tokens: int) -> nn.Module:
    """The head named by config["kind"], with the other keys as its settings. Raises UserError."""
    try:
        kind = HeadKind(config.get("kind"))
    except ValueError:
        known = ", ".join(kind.value for kind in HeadKind)
        raise UserError(
            f"model.head.kind: {config.get('kind')!r} is not a sequence head; choose one of {known}"
        ) from None
    module = importlib.import_module(f"app.model.heads.{kind.value}")
    settings = parse(module.Settings, {k: v for k, v in config.items() if k != "kind"}, where="model.head")
    return module.Head(settings, c_s, num_tokens)
