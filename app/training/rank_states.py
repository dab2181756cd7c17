"""States of metrics in a checkpoint: every rank's own, so that not even rounding tells a resumed run."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors


def of_all_ranks(metric: Metric) -> dict[str, Tensor]:
    """Every rank's states, each [ranks, ...] on the CPU; to be called on all of them."""
    gather = gather_all_tensors if torch.distributed.is_initialized() else lambda own: [own]
    return {name: torch.stack(gather(state)).cpu() for name, state in metric.metric_state.items()}


def restore(metric: Metric, of_ranks: dict[str, Tensor]) -> None:
    """Each rank takes what it had; where their number changed, the first takes all. States of other names or shapes,
    as of a version that had other columns, are left."""
    own = metric.metric_state
    if own.keys() != of_ranks.keys() or not all(_fits(of_ranks[name], state) for name, state in own.items()):
        return
    there = torch.distributed.is_initialized()
    rank, ranks = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if there else (0, 1)
    for name, state in own.items():
        parts = of_ranks[name].reshape(-1, *state.shape)
        if len(parts) == ranks:
            setattr(metric, name, parts[rank].clone())
        elif rank == 0:
            setattr(metric, name, metric._reductions[name](parts))


def _fits(parts: Tensor, state: Tensor) -> bool:
    """[ranks, ...], or as versions before had it: of all ranks together."""
    return parts.shape[parts.dim() - state.dim() :] == state.shape and parts.dim() - state.dim() in (0, 1)
