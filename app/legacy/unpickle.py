"""Reading a Lightning checkpoint that holds OmegaConf objects without running anything in it.

torch's weights-only unpickler admits tensors and plain containers. The classes that OmegaConf pickles into
`hyper_parameters` are replaced by inert stand-ins that only keep the state they are given; any other class is refused
by torch before it is looked up.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.errors import UserError
from app.training import safe_load

_LARGEST = 1_000_000
"""Values in a checkpoint. Real ones hold thousands; a small file whose lists hold each other can mean any number."""


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


_NODES = ("Any", "String", "Integer", "Float", "Boolean", "Path", "Bytes", "InterpolationResult")

_STAND_INS = [
    *(_stand_in(f"omegaconf.{name}") for name in ("base.ContainerMetadata", "base.Metadata")),
    *(_stand_in(f"omegaconf.{name}") for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *(_stand_in(f"omegaconf.nodes.{name}Node") for name in _NODES),
    _stand_in("typing.Any"),
    *((builtin, f"builtins.{builtin.__name__}") for builtin in (dict, list, tuple, set, int, float, str, bool)),
    (_empty_dict, "collections.defaultdict"),
]


def load_checkpoint(path: str | Path) -> dict:
    """A checkpoint as plain containers and CPU tensors; OmegaConf objects become plain containers too.

    Raises UserError for a file that is missing, cut off or no checkpoint, and for one that names a class outside the
    allow-list: nothing in it is executed.
    """
    loaded = safe_load.load(path, _STAND_INS)
    try:
        return _plain(loaded, itertools.count())
    except RecursionError:
        raise UserError(f"{path}: refused, what it holds is nested without end") from None


def _plain(value: Any, number: Iterator[int]) -> Any:
    """Stand-ins replaced by what they held: containers by dict and list, leaf nodes by their value."""
    if next(number) > _LARGEST:
        raise RecursionError
    if isinstance(value, _Inert):
        return _plain(value.state.get("_content", value.state.get("_val")), number)
    if isinstance(value, dict):
        return {key: _plain(item, number) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, number) for item in value)
    return value
