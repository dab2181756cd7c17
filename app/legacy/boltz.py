"""Boltz's pairformer layers: their names, and a trunk that starts from them (Boltz-2, Passaro et al. 2025)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from app.blocks import pairformer_noseq
from app.errors import UserError
from app.legacy.unpickle import load_checkpoint
from app.model.codesign import CodesignModel

_MULTIPLICATION = {name: name for name in ("norm_in", "p_in", "g_in", "norm_out", "p_out", "g_out")}
_ATTENTION = {
    "norm": "layer_norm",
    "q": "mha.linear_q",
    "k": "mha.linear_k",
    "v": "mha.linear_v",
    "pair_bias": "linear",
    "gate": "mha.linear_g",
    "out": "mha.linear_o",
}
_TRANSITION = {"norm": "norm", "gate": "fc1", "hidden": "fc2", "out": "fc3"}
_NODE_ATTENTION = {
    "norm": "pre_norm_s",
    "norm_edge": "attention.proj_z.0",
    "q": "attention.proj_q",
    "k": "attention.proj_k",
    "v": "attention.proj_v",
    "pair_bias": "attention.proj_z.1",
    "gate": "attention.proj_g",
    "out": "attention.proj_o",
}
_PARTS = {
    "pair_track.multiplication.outgoing": ("tri_mul_out.", _MULTIPLICATION),
    "pair_track.multiplication.incoming": ("tri_mul_in.", _MULTIPLICATION),
    "pair_track.attention.starting": ("tri_att_start.", _ATTENTION),
    "pair_track.attention.ending": ("tri_att_end.", _ATTENTION),
    "pair_track.transition": ("transition_z.", _TRANSITION),
    "node_track.attention": ("", _NODE_ATTENTION),
    "node_track.transition": ("transition_s.", _TRANSITION),
}
_NAMES = {
    f"{part}.{ours}": prefix + theirs for part, (prefix, table) in _PARTS.items() for ours, theirs in table.items()
}
"""The layers (LayerNorm and linear) of one of our blocks, and what Boltz calls them."""

_OF_PAIR_TRACK = ("tri_mul_", "tri_att_", "transition_z.")
_WITHOUT_EFFECT = {"attention.proj_z.0.bias"}
"""Shifts all logits of a row alike, which softmax cancels; our blocks have no such parameter."""

_LAYER = re.compile(
    r"(?P<where>(?:.*[._])?pairformer_module\.(?:_orig_mod\.)?layers)\.(?P<index>\d{1,6})\.(?P<name>.+)"
)


@dataclass(frozen=True)
class Report:
    """What the trunk of a model took from a checkpoint; tracks and blocks by their path in the model."""

    source: str  # where in the checkpoint the layers are
    taken: dict[str, int] = field(default_factory=dict)  # track -> number of the layer that fills it
    skipped: dict[str, str] = field(default_factory=dict)  # track -> why the layer does not fit it
    new: list[str] = field(default_factory=list)  # blocks after the last layer

    def __str__(self) -> str:
        lines = [f"{track}: from {self.source}.{layer}" for track, layer in self.taken.items()]
        lines += [f"{track}: new, {reason}" for track, reason in self.skipped.items()]
        lines += [f"{block}: new, the checkpoint has no further layer" for block in self.new]
        return "\n".join(lines)


def load_layer(block: pairformer_noseq.Block, tensors: Mapping[str, Tensor]) -> None:
    """Fills a `pairformer` or `pairformer_noseq` block with one layer under Boltz's names (`tri_mul_out.p_in.weight`).

    Raises UserError for another block, and listing what is missing, unexpected, of another shape or not finite; the
    block is then as it was.
    """
    if not isinstance(block, pairformer_noseq.Block) or not isinstance(tensors, Mapping):
        raise UserError("a Boltz layer, {name: tensor}, fills a pairformer or pairformer_noseq block and nothing else")
    wanted = _wanted(block)
    if faults := _faults(wanted, tensors):
        raise UserError("the Boltz layer does not fit the block: " + "; ".join(faults))
    _fill(wanted, tensors)


def start_from(model: CodesignModel, path: str | Path) -> Report:
    """The trunk's pairformer and pairformer_noseq blocks, in the order in which they run, from the layers of a Boltz
    checkpoint. Each track of a block is taken whole where names and shapes fit, and left as it is where not.

    Raises UserError for a file that cannot be read or names classes outside the allow-list (nothing in it is run), for
    one without such layers, for a trunk without such blocks, and where nothing fits.
    """
    blocks = {
        name: module
        for name, module in model.trunk.named_modules(prefix="trunk")
        if isinstance(module, pairformer_noseq.Block)
    }
    if not blocks:
        raise UserError(
            f"{path}: nothing to start from it, no stage of model.trunk.stages is a pairformer or pairformer_noseq"
        )
    source, layers = _layers(load_checkpoint(path), path)
    report = Report(source)
    for number, (name, block) in enumerate(blocks.items()):
        if number == len(layers):
            report.new.extend(list(blocks)[number:])
            break
        index, tensors = layers[number]
        for track, wanted in _tracks(block).items():
            theirs = {key: tensor for key, tensor in tensors.items() if _track_of(key) == track}
            if faults := _faults(wanted, theirs):
                more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
                report.skipped[f"{name}.{track}"] = f"layer {index} does not fit: {faults[0]}{more}"
            else:
                _fill(wanted, theirs)
                report.taken[f"{name}.{track}"] = index
    if not report.taken:
        track, reason = next(iter(report.skipped.items()))
        raise UserError(f"{path}: nothing in it fits the model; {track}: {reason}")
    return report


def _layers(checkpoint: dict, path: str | Path) -> tuple[str, list[tuple[int, dict[str, Tensor]]]]:
    """Where the trunk's layers are, and the layers with their numbers. Averaged weights, with which Boltz predicts, go
    before the last ones."""
    found: dict[str, dict[int, dict[str, Tensor]]] = {}
    for key, value in _leaves(checkpoint):
        if match := _LAYER.fullmatch(key):
            found.setdefault(match["where"], {}).setdefault(int(match["index"]), {})[match["name"]] = value
    if not found:
        raise UserError(f"{path}: holds no pairformer_module.layers: give a checkpoint of Boltz-2")
    source = min(found, key=lambda where: ("ema" not in where, len(where)))
    return source, sorted(found[source].items())


def _leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _track_of(name: str) -> str:
    return "pair_track" if name.startswith(_OF_PAIR_TRACK) else "node_track"


def _wanted(block: nn.Module) -> dict[str, Tensor]:
    """The block's parameters under Boltz's names; to write to them is to write to the block."""
    return {_theirs(name): tensor for name, tensor in block.state_dict().items()}


def _tracks(block: nn.Module) -> dict[str, dict[str, Tensor]]:
    wanted = _wanted(block)
    tracks = dict.fromkeys(_track_of(name) for name in wanted)
    return {track: {name: t for name, t in wanted.items() if _track_of(name) == track} for track in tracks}


def _theirs(name: str) -> str:
    ours, kind = name.rsplit(".", 1)
    return f"{_NAMES[ours]}.{kind}"


def _faults(wanted: Mapping[str, Tensor], tensors: Mapping[str, object]) -> list[str]:
    faults = [f"missing {name}" for name in wanted if name not in tensors]
    faults += [f"unexpected {name}" for name in tensors if name not in wanted and name not in _WITHOUT_EFFECT]
    for name, tensor in wanted.items():
        given = tensors.get(name, tensor)
        if not (isinstance(given, Tensor) and given.is_floating_point() and given.layout == torch.strided):
            faults.append(f"{name} is no dense tensor of floating-point numbers")
        elif given.shape != tensor.shape:
            faults.append(f"{name} has shape {list(given.shape)}, expected {list(tensor.shape)}")
        elif not given.isfinite().all():
            faults.append(f"{name} is not finite")
    return faults


@torch.no_grad()
def _fill(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in wanted.items():
        tensor.copy_(tensors[name])
