"""Starting a model from the weights of another: what fits is taken, and all of it is accounted for.

Models are compared part by part: the embeddings, the head's layers, each block. Blocks of one type are matched in their
order, those of the trunk with those of the trunk, and so on. A part is taken where its settings agree and every tensor
that both have is of the same shape.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from app.blocks import Block, BlockSettings
from app.model.codesign import CodesignModel


@dataclass
class Transfer:
    """What became of every parameter: those taken, those left behind, those that stay as they were made."""

    taken: list[tuple[str, str, int]] = field(default_factory=list)  # part there, part here, how many numbers
    left: list[tuple[str, str]] = field(default_factory=list)  # part there (or one tensor of it), why
    new: list[tuple[str, int]] = field(default_factory=list)  # part here (or one tensor of it), how many numbers
    tensors: dict[str, str] = field(default_factory=dict)  # name here -> name there, of all that is taken

    @property
    def numbers_taken(self) -> int:
        return sum(count for _, _, count in self.taken)

    def lines(self) -> list[str]:
        """The report, a line for each part."""
        new = sum(count for _, count in self.new)
        there = [f"  taken {here}, {n:,} parameters" + f" (there {old})" * (old != here) for old, here, n in self.taken]
        left = [f"  not taken: {name}: {why}" for name, why in self.left]
        made = [f"  new: {name}, {count:,} parameters" for name, count in self.new]
        return [f"{self.numbers_taken:,} parameters taken, {new:,} new:", *there, *left, *made]


@dataclass
class _Part:
    name: str
    settings: dict[str, Any]
    tensors: dict[str, Tensor]  # by the name within the part


def match(source: CodesignModel, target: CodesignModel, leave: Mapping[str, str] | None = None) -> Transfer:
    """What of `source` the target can take. Only names, settings and shapes are looked at; meta tensors serve.

    leave: top-level parts that are not to be taken, each with the reason.
    """
    report, theirs = Transfer(), _parts(source)
    for place, why in (leave or {}).items():
        for kind in [kind for kind in theirs if kind[0] == place]:
            report.left += [(part.name, why) for part in theirs.pop(kind)]
    for kind, parts in _parts(target).items():
        others = theirs.pop(kind, [])
        for part, other in zip(parts, others, strict=False):
            _match(other, part, report)
        report.new += [(part.name, _count(part.tensors)) for part in parts[len(others) :]]
        report.left += [(other.name, "this model has no more of its kind") for other in others[len(parts) :]]
    report.left += [(part.name, "this model has nothing of its kind") for parts in theirs.values() for part in parts]
    return report


def transfer(source: CodesignModel, target: CodesignModel, leave: Mapping[str, str] | None = None) -> Transfer:
    """`match`, and the weights that it names copied into `target`."""
    report = match(source, target, leave)
    theirs, ours = source.state_dict(), target.state_dict()
    with torch.no_grad():
        for here, there in report.tensors.items():
            ours[here].copy_(theirs[there])
    return report


def _match(source: _Part, target: _Part, report: Transfer) -> None:
    if why := _difference(source, target):
        report.left.append((source.name, why))
        report.new.append((target.name, _count(target.tensors)))
        return
    both = [name for name in target.tensors if name in source.tensors]
    report.tensors |= {f"{target.name}.{name}": f"{source.name}.{name}" for name in both}
    report.taken.append((source.name, target.name, sum(target.tensors[name].numel() for name in both)))
    for name in _outermost(source.tensors.keys() - target.tensors.keys()):
        report.left.append((f"{source.name}.{name}", "this model has none there"))
    for name in _outermost(target.tensors.keys() - source.tensors.keys()):
        count = sum(tensor.numel() for key, tensor in target.tensors.items() if _first(key) == name)
        report.new.append((f"{target.name}.{name}", count))


def _difference(source: _Part, target: _Part) -> str | None:
    """Why a part cannot be taken."""
    for key, here in target.settings.items():
        if source.settings.get(key) != here:
            return f"{key} is {source.settings.get(key)} there and {here} here"
    for name, here in target.tensors.items():
        there = source.tensors.get(name)
        if there is not None and there.shape != here.shape:
            return f"{name} is {list(there.shape)} there and {list(here.shape)} here"
    return None


def _parts(model: CodesignModel) -> dict[tuple[str, str], list[_Part]]:
    """All parameters of a model, by (place, kind), in order."""
    settings, state = model.settings, model.state_dict()
    blocks = [(name, module) for name, module in model.named_modules() if isinstance(module, Block)]
    of_blocks = {key for name, _ in blocks for key in state if key.startswith(f"{name}.")}
    others = {
        "node_embed": settings.node_embed.model_dump() | {"num_tokens": settings.num_tokens},
        "edge_embed": settings.edge_embed.model_dump(),
        "head": {},
        "trunk": {},
        "esm": {},
    }
    rest = {key: tensor for key, tensor in state.items() if key not in of_blocks}
    found: dict[tuple[str, str], list[_Part]] = defaultdict(list)
    for name, about in others.items():
        if tensors := _inside(rest, name):
            found[name, ""].append(_Part(name, about, tensors))
    assert rest.keys() <= {f"{name}.{key}" for name in others for key in _inside(rest, name)}, "a part is not listed"
    for name, block in blocks:
        found[_first(name), block.settings.name].append(_Part(name, _numbers(block.settings), _inside(state, name)))
    return found


def _numbers(settings: BlockSettings) -> dict[str, Any]:
    """The settings that say what a block's tensors mean: numbers of heads and the like. Widths show in the shapes."""
    values = settings.model_dump(exclude=set(BlockSettings.model_fields))
    return {name: value for name, value in values.items() if type(value) is int}


def _inside(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}


def _count(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _first(name: str) -> str:
    return name.partition(".")[0]


def _outermost(names: set[str]) -> Iterator[str]:
    """`edge_transition` for all the tensors inside."""
    return iter(sorted({_first(name) for name in names}))
