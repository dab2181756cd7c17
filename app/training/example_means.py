"""Means over examples, each of which counts once, however many ranks met it."""

import hashlib
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class ExampleMeans(Metric):
    """The states are every example's key, made from its name, and its numbers by column, NaN where it has none.

    Sums are taken in the order of the keys and in float64, so that they do not depend on who met which example when.

    may_lack: columns in which NaN says that an example has nothing to measure, and leaves it out. In the others it says
    that something went wrong: it counts as infinite, and is seen in the mean.
    """

    def __init__(self, columns: Sequence[str], may_lack: Collection[str] = ()):
        super().__init__()
        self.columns, self.may_lack = tuple(columns), frozenset(may_lack)
        self.add_state("keys", [], dist_reduce_fx="cat")
        self.add_state("values", [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """A rank that meets no example has states of the right shapes all the same, for the others to wait for."""
        super().reset()
        self.keys = [torch.zeros(0, dtype=torch.int64, device=self.device)]
        self.values = [torch.zeros(0, len(self.columns), device=self.device)]

    def update(self, names: Sequence[str], numbers: Mapping[str, Tensor]) -> None:
        """numbers: [names], by column."""
        rows = torch.full((len(names), len(self.columns)), torch.nan, device=self.device)
        for column, values in numbers.items():
            none = torch.nan if column in self.may_lack else torch.inf
            rows[:, self.columns.index(column)] = values.to(rows).nan_to_num(nan=none, posinf=torch.inf)
        self.keys.append(torch.tensor([_key(name) for name in names], dtype=torch.int64, device=self.device))
        self.values.append(rows)

    def compute(self) -> dict[str, tuple[float, int]]:
        """By column, the mean and how many examples it is over; less the columns without any. To be called on all
        ranks."""
        keys, values = dim_zero_cat(self.keys).cpu(), dim_zero_cat(self.values).cpu().double()
        found = {}
        for column, numbers in zip(self.columns, values.unbind(-1), strict=True):
            known = ~numbers.isnan()
            mine, order = keys[known].sort(stable=True)
            first = torch.cat([torch.ones_like(mine[:1]), mine.diff()]).bool()
            if len(each := numbers[known][order][first]):
                found[column] = float(each.mean()), len(each)
        return found


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8], "big", signed=True)
