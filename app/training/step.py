"""Optimizer steps over the batches of their shares, made, or left out, by all ranks alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from app.data.ledger import Ledger
from app.devices import full_precision
from app.training import together
from app.training.lockstep import Lockstep
from app.training.memory import Alone, unless_out_of_memory
from app.training.passes import Place, passes
from app.training.recorded import RecordedPasses
from app.training.strategies import unwrap
from app.training.undo import Before
from app.types import ProteinBatch

if TYPE_CHECKING:
    from app.training.module import CodesignModule


T = TypeVar("T")


class Skipped(StrEnum):
    """Why an optimizer step was left out."""

    MEMORY = "out of memory"
    NOT_FINITE = "numbers that are not finite"


class OptimizerStep:
    """The step that is being made: Lightning's manual optimization of a `CodesignModule`.

    Each rank goes through its batches by itself, so that one which runs out of memory can try again in halves while the
    others wait. Where the batches of the step are through, all ranks agree, by one small exchange, on whether each of
    them has a finite gradient; only then gradients are averaged, to the same numbers as DDP's, which would have begun
    with it during the backward pass: little is lost by that with parameters as few as ours beside the activations.
    The optimizer's step is taken back on all ranks where any of them ran out of memory in it, and tried once more.

    A step that is left out changes neither weights nor the optimizer's state, but it counts as one of the run: in
    `global_step`, in the schedule, for checkpoints and for `trainer.max_steps`. So a run of bad batches has an end.

    Under FSDP, where ranks wait for each other in the passes themselves, `Lockstep` has them try again together.
    """

    def __init__(self, module: CodesignModule):
        self.module, self.ledger, self.ranks = module, Ledger(), Alone()
        self.recorded: RecordedPasses | None = None
        self._begin()

    def on_train_start(self) -> None:
        """To be called on all ranks."""
        unwrap(self.module.trainer.strategy)
        if isinstance(self.module.model, FSDPModule):
            self.ranks = Lockstep(self.module.model)
        if self.module.recipe.cuda_graph:
            self.recorded = RecordedPasses(self.module.losses_of_part, self.module.parameters())

    def _begin(self) -> None:
        self._lacks_memory, self._bad_loss, self._known = False, torch.tensor(False), set(self.ledger.shapes)

    def take(self, batch: ProteinBatch, place: Place) -> dict[str, Any]:
        """`CodesignModule.outputs` of a batch, empty where memory does not suffice for it. Of one that ends a step,
        also `lr`, and `gradient_norm`, before clipping, or why the step was `skipped` and whether this rank is to
        `blame`."""
        out = None
        if not self._lacks_memory:
            out = passes(self.module, batch, place, self.ledger, self.ranks, self.recorded)
        if out is None:
            self._lacks_memory, out = True, {}
        else:
            self._bad_loss = self._bad_loss.to(batch.device) | ~out["losses"]["train_loss"].isfinite().all()
        if batch.share.ends:
            with full_precision(batch.device):
                out |= self._end(batch.device)
        return out

    def _end(self, device: torch.device) -> dict[str, Any]:
        prepared = None if self._lacks_memory else self._unless_out_of_memory(self._prepare, device)
        norm, row = prepared or (torch.zeros((), device=device), None)
        lacks_memory = prepared is None
        bad_loss, bad_gradient = self._bad_loss.to(device), ~norm.isfinite()
        news = self.ledger.shapes != self._known
        flags = [lacks_memory, bad_loss, bad_gradient, news]
        memory, not_finite_loss, not_finite, any_news = together.anyones(flags, device)
        if any_news:
            self.ledger.note(shape for shapes in together.everyones(self.ledger.shapes) for shape in shapes)
        if memory:
            out = {"skipped": Skipped.MEMORY, "blame": lacks_memory}
        elif not_finite_loss or not_finite:  # a gradient may be that of all ranks already
            out = {"skipped": Skipped.NOT_FINITE, "blame": bool(bad_loss if not_finite_loss else bad_gradient)}
        else:
            out = self._made(norm, row, device)
        out["lr"] = self.module.optimizers().param_groups[0]["lr"]  # before the schedule moves on
        self._count()
        for parameter in self.module.parameters():
            parameter.grad = None
        self._begin()
        return out

    def _prepare(self) -> tuple[Tensor, Tensor | None]:
        """The norm of this rank's gradient (of all ranks' where parameters are sharded), and what is to be averaged."""
        for parameter in self.module.parameters():
            if parameter.requires_grad and parameter.grad is None:  # of no use to these batches
                parameter.grad = torch.zeros_like(parameter)
        gradients = self._gradients()
        norm = get_total_norm(gradients)
        if isinstance(norm, DTensor):
            return norm.full_tensor(), None
        return norm, together.flat(gradients) if together.several() else None

    def _made(self, norm: Tensor, row: Tensor | None, device: torch.device) -> dict[str, Any]:
        if row is not None:
            together.average(row, self._gradients())
        optimizer, clipped = self.module.optimizers().optimizer, []

        def make() -> bool:
            if not clipped:
                clipped.append(self._clip(norm if row is None else get_total_norm(self._gradients())))
            self._optimize(optimizer)
            return True

        for _ in range(2):
            before = self._unless_out_of_memory(lambda: Before(optimizer), device)
            done = before is not None and bool(unless_out_of_memory(make, device))
            if not done:
                self._let_go(device)
            (failed,) = together.anyones([not done], device)
            if not failed:
                return {"gradient_norm": clipped[0]}
            if before is not None:
                before.put_back()
        return {"skipped": Skipped.MEMORY, "blame": not done}

    def _unless_out_of_memory(self, work: Callable[[], T], device: torch.device) -> T | None:
        """As the function of that name, where passes that are recorded give way."""
        made = unless_out_of_memory(work, device)
        return unless_out_of_memory(work, device) if made is None and self._let_go(device) else made

    def _let_go(self, device: torch.device) -> bool:
        """Whether recorded passes held memory that they now do not."""
        held = self.recorded is not None and self.recorded.holds_memory
        if held:
            self.recorded.give_up(device)
        return held

    def _clip(self, norm: Tensor) -> Tensor:
        """The norm before."""
        if clip := self.module.recipe.trainer.gradient_clip:
            clip_grads_with_norm_(self.module.parameters(), clip, norm)
        return norm

    def _optimize(self, optimizer: torch.optim.Optimizer) -> None:
        """By way of Lightning, for its hooks."""
        self.module.trainer.strategy.optimizer_step(optimizer, closure=lambda: None)

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]

    def _count(self) -> None:
        steps = self.module.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        steps.increment_ready()
        steps.increment_completed()
        if scheduler := self.module.lr_schedulers():
            with warnings.catch_warnings():  # torch misses the optimizer's step where the first one was skipped
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                scheduler.step()
