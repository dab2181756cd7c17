"""A state whose tensors are in shards over all ranks, whole on the first one."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, Shard
from torch.utils._pytree import tree_flatten, tree_unflatten


@torch.no_grad()
def whole(state: dict[str, Any]) -> dict[str, Any]:
    """With its tensors joined and on the CPU, on the first rank; empty on the others. To be called on all at once.

    state: dicts and lists of anything.
    """
    leaves, structure = tree_flatten(state)
    shards = [leaf for leaf in leaves if isinstance(leaf, DTensor)]
    on_cpus = all(shard.device.type == "cpu" and shard.placements == (Shard(0),) for shard in shards)
    joined = (_in_one_exchange if on_cpus else _one_by_one)(shards)
    first, found = _is_first(), []
    for leaf in leaves:
        value = next(joined) if isinstance(leaf, DTensor) else leaf
        if first:
            found.append(value.cpu() if isinstance(value, Tensor) else value)
    return tree_unflatten(found, structure) if first else {}


def _one_by_one(shards: list[DTensor]) -> Iterator[Tensor]:
    return (shard.full_tensor() for shard in shards)


def _in_one_exchange(shards: list[DTensor]) -> Iterator[Tensor]:
    """What `_one_by_one` gives, on the first rank; on the others nothing of use.

    One exchange a tensor is hundreds a checkpoint: on CPUs each takes milliseconds, and in torch 2.13 gloo was seen to
    spoil its own memory, once after some 300,000, which ends the process.
    """
    mine = [shard.to_local() for shard in shards]
    if not shards:
        return iter(mine)
    everyones = [None] * distributed.get_world_size() if _is_first() else None
    distributed.gather_object(mine, everyones)
    return map(torch.cat, zip(*everyones, strict=True)) if everyones else iter(mine)


def _is_first() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0
