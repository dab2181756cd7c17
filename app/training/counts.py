"""What a run counts over all its interruptions."""

import torch
from torch import Tensor
from torchmetrics import Metric

_OVER_RANKS = {"residues_seen": "sum", "skipped_nonfinite": "max", "skipped_oom": "max"}


class Counts(Metric):
    """`counts.update(skipped_oom=1)`; whoever skips something is given this one object.

    residues_seen: each rank counts its own. skipped_nonfinite, skipped_oom: optimizer steps, and the latter in every
    validation also the examples and the designs that it left out; ranks skip them together, and each of them counts.
    """

    def __init__(self):
        super().__init__()
        for name, reduce in _OVER_RANKS.items():
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx=reduce)

    def update(self, **more: int | Tensor) -> None:
        for name, number in more.items():
            getattr(self, name).add_(number)

    def compute(self) -> dict[str, int]:
        """By name, over all ranks: to be called on all of them."""
        return {name: int(getattr(self, name)) for name in _OVER_RANKS}
