"""Reading a Lightning checkpoint that holds OmegaConf objects without running anything in it.

torch's weights-only unpickler admits tensors and plain containers. The classes that OmegaConf pickles into
`hyper_parameters` are replaced by inert stand-ins that only keep the state they are given; any other class is refused
by torch before it is looked up.
"""

import pickle
from pathlib import Path
from typing import Any

import torch

from app.errors import UserError


class _Inert:
    """Takes the place of a class: remembers its state and does nothing."""

    def __init__(self, *_args, **_kwargs):
        self.state: dict = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def _stand_in(qualified: str) -> tuple[type, str]:
    return type(qualified.rsplit(".", 1)[-1], (_Inert,), {"__module__": __name__}), qualified


def _empty_dict(*_args) -> dict:
    return {}


_NODES = ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "PathNode", "BytesNode", "InterpolationResultNode")  # fmt: skip

_ALLOWED = [
    *(_stand_in(f"omegaconf.{name}") for name in ("base.ContainerMetadata", "base.Metadata")),
    *(_stand_in(f"omegaconf.{name}") for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *(_stand_in(f"omegaconf.nodes.{name}") for name in _NODES),
    _stand_in("typing.Any"),
    *((builtin, f"builtins.{builtin.__name__}") for builtin in (dict, list, tuple, set, int, float, str, bool)),
    (_empty_dict, "collections.defaultdict"),
]


def load_checkpoint(path: str | Path) -> dict:
    """A checkpoint as plain containers and CPU tensors; OmegaConf objects become plain containers too.

    Raises UserError for a file that is missing, cut off or no checkpoint, and for one that names a class outside the
    allow-list: nothing in it is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        for marker in ("Unsupported global: GLOBAL ", "Unsupported class "):
            if marker in reason:
                name = reason.split(marker)[1].split()[0]
                raise UserError(
                    f"{path}: refused, it names {name}, which no checkpoint needs; nothing was run"
                ) from None
        raise UserError(f"{path}: refused, it is not a plain checkpoint; nothing in it was run") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read, the file is cut off or no checkpoint ({_first_line(error)})"
        ) from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return _plain(checkpoint)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _plain(value: Any) -> Any:
    """Stand-ins replaced by what they held: containers by dict and list, leaf nodes by their value."""
    if isinstance(value, _Inert):
        return _plain(value.state.get("_content", value.state.get("_val")))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value
