"""Forward and backward pass of a batch, in halves where memory does not suffice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from app.data.ledger import Ledger, in_halves
from app.devices import full_precision
from app.training.memory import Alone, unless_out_of_memory
from app.types import NoisyBatch, ProteinBatch

if TYPE_CHECKING:
    from app.training.module import CodesignModule
    from app.training.recorded import RecordedPasses


@dataclass(frozen=True)
class Place:
    """Where in a run a batch is, of which its randomness is a function, along with the run's seed."""

    epoch: int
    batch: int  # of the epoch
    rank: int


@dataclass(frozen=True)
class Part:
    """Examples of a batch, noised, that go through the passes together."""

    noisy: NoisyBatch
    conditioned: bool  # whether the model is to condition on its own first estimate
    weight: float  # of their mean loss in that of the optimizer step

    def told(self, losses: dict[str, Tensor]) -> dict[str, Any]:
        """Their part of the step's `loss`, and for the log every example's `losses` [B], detached, and times
        `structure_t` and `token_t` [B]. losses: by name, [B] each."""
        return {
            "loss": losses["train_loss"].mean() * self.weight,
            "losses": {name: values.detach() for name, values in losses.items()},
            "structure_t": self.noisy.r3_t[:, 0],
            "token_t": self.noisy.cat_t[:, 0],
        }


def passes(
    module: CodesignModule,
    batch: ProteinBatch,
    place: Place,
    ledger: Ledger,
    ranks: Alone | None = None,
    recorded: RecordedPasses | None = None,
) -> dict[str, Any] | None:
    """Add a batch's share of the gradient to `.grad` of the parameters; `CodesignModule.outputs` of it, detached.

    None, and the gradients as they were, where memory does not suffice for one of its examples alone. A batch in halves
    has the noise of the whole, and without dropout its gradient; where there is dropout, each part draws its own.
    ranks: `Lockstep` where other ranks wait for this one in its passes. recorded: what replays them, where none does.
    """
    ranks, parameters = ranks or Alone(), list(module.parameters())

    def forward_backward(first: int, last: int) -> dict[str, Any]:
        if recorded is not None:
            part = module.part(batch, place, first, last)
            return part.told(recorded(part.noisy, part.conditioned, part.weight))
        out = module.outputs(batch, place, *((first, last) if first < last else (0, 1)))
        if first == last:  # other ranks have an example left, and wait
            out = {"loss": 0 * out["loss"]} | _none_of({name: out[name] for name in out if name != "loss"})
        with full_precision(batch.device):  # autocast has chosen the types already
            out["loss"].backward()
        return out | {"loss": out["loss"].detach()}

    def attempt(first: int, last: int) -> dict[str, Any] | None:
        earlier = _take(parameters)  # aside: a backward pass that breaks off has added some of its gradients
        shape = (last - first, batch.res_mask.shape[1])

        def work() -> dict[str, Any]:
            return forward_backward(first, last)

        beside = recorded is not None and recorded.holds_memory
        out = unless_out_of_memory(work, batch.device) if beside else None
        if beside and out is None:
            _take(parameters)
            recorded.give_up(batch.device)
        if out is None:
            out = ranks.attempt(work, batch.device, lambda: ledger.note([shape]))
        if out is None:
            _take(parameters)
        _add(parameters, earlier)
        return out

    parts = in_halves(attempt, *batch.res_mask.shape, ledger, ranks.anyones)
    return None if parts is None else _joined(parts)


def _take(parameters: list[nn.Parameter]) -> list[Tensor | None]:
    taken = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return taken


def _add(parameters: list[nn.Parameter], earlier: list[Tensor | None]) -> None:
    for parameter, before in zip(parameters, earlier, strict=True):
        if before is not None:
            parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)


def _none_of(values: Any) -> Any:
    return {name: _none_of(value) for name, value in values.items()} if isinstance(values, Mapping) else values[:0]


def _joined(parts: list[Any]) -> Any:
    """Of examples that were apart: their values in a row, and the sum of their shares of the loss."""
    head = parts[0]
    if isinstance(head, Mapping):
        return {name: _joined([part[name] for part in parts]) for name in head}
    return torch.stack(parts).sum(0) if head.dim() == 0 else torch.cat(parts)
