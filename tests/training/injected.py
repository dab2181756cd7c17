"""Training in which memory does not suffice, numbers are not finite, or signals come, at chosen batches and ranks."""

import contextlib
import multiprocessing
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.tensor import DTensor

from app.model.codesign import CodesignModel
from app.signals import ENDING
from app.training.module import CodesignModule
from app.training.passes import Place
from app.training.run import train
from app.types import ProteinBatch
from tests.training import lives

LINEAR = "trunk.stages.0.1.transformer.layers.0.hidden"
"""The module in which it happens: in the middle of the model."""

HANGS = 60  # seconds


@dataclass(frozen=True)
class Fault:
    """where: forward, backward, optimizer (at its start) or midway (in its step), for memory; loss, module (its output)
    or gradient, for numbers. batch: of the first epoch. above: only of more examples than these at once. times: at
    most."""

    where: str
    batch: int
    rank: int = 0
    above: int = 0
    times: int = 1000


@dataclass
class Injected:
    """What is to happen, and what the module was asked for."""

    left: dict[Fault, int]
    seen: dict[Place, ProteinBatch] = field(default_factory=dict)
    place: Place | None = None
    size: int = 0

    def strikes(self, where: str) -> bool:
        for fault, left in self.left.items():
            here = self.place is not None and self.place == Place(0, fault.batch, fault.rank)
            if here and fault.where == where and self.size > fault.above and left:
                self.left[fault] -= 1
                return True
        return False


def inject(faults: Sequence[Fault], patch: pytest.MonkeyPatch) -> Injected:
    found = Injected({fault: fault.times for fault in faults})
    outputs, build, step = CodesignModule.outputs, CodesignModel.__init__, torch.optim.AdamW.step

    def watched(self, batch, place, first=0, last=None):
        found.place, found.size = place, (len(batch.names) if last is None else last) - first
        found.seen[place] = batch
        for number in ENDING:
            if found.strikes(number.name):
                os.kill(os.getpid(), number)
        out = outputs(self, batch, place, first, last)
        if found.strikes("loss"):
            out["loss"] = out["loss"] * float("nan")
            out["losses"]["train_loss"][-1] = float("nan")
        return out

    def in_forward(module, arguments, output):
        if found.strikes("forward"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB (injected)")
        if output.requires_grad:
            output.register_hook(in_backward)
        return output * float("nan") if found.strikes("module") else output

    def in_backward(gradient):
        if found.strikes("backward"):
            raise RuntimeError("CUDA error: out of memory (injected)")
        return gradient * float("inf") if found.strikes("gradient") else gradient

    def built(self, *arguments, **keywords):
        build(self, *arguments, **keywords)
        self.get_submodule(LINEAR).register_forward_hook(in_forward)

    def stepping(self, closure=None):
        if found.strikes("optimizer"):
            raise torch.OutOfMemoryError("out of memory (injected)")
        if not found.strikes("midway"):
            return step(self, closure)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        kept = [parameter.grad for parameter in parameters]
        for parameter in parameters[len(parameters) // 2 :]:
            parameter.grad = None
        step(self, closure)
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient
        raise torch.OutOfMemoryError("out of memory (injected)")

    patch.setattr(CodesignModule, "outputs", watched)
    patch.setattr(CodesignModel, "__init__", built)
    patch.setattr(torch.optim.AdamW, "step", stepping)
    return found


def on_two_ranks(faults: Sequence[Fault], arguments: Sequence[str], folder: Path) -> list[int]:
    """Exit statuses. Every rank leaves its weights at the end, whole, as `weights_of` reads them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    make = lives._server.Process
    processes = [make(target=_rank, args=(rank, port, list(faults), list(arguments), folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(HANGS)
    hangs = [process.is_alive() for process in processes]
    for process in processes:
        process.kill()
    assert not any(hangs), f"it hangs: {said(folder)}"
    return [process.exitcode for process in processes]


def said(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("said-*.log")))


def weights_of(folder: Path, rank: int) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"rank{rank}.pt", weights_only=True)


def _rank(rank: int, port: int, faults: list[Fault], arguments: list[str], folder: Path) -> None:
    with (folder / f"said-{rank}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    with contextlib.suppress(RuntimeError):
        multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "injected"}
    os.environ.update({name: str(value) for name, value in (here | there).items()})
    rank_zero_only.rank = rank  # which Lightning reads from there when it is imported

    def leave(module) -> None:
        whole = {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in module.state_dict().items()}
        torch.save(whole, folder / f"rank{rank}.pt")

    with pytest.MonkeyPatch.context() as patch:
        inject(faults, patch)
        patch.setattr(CodesignModule, "on_train_end", leave, raising=False)
        lives.entry.run(lambda _: train(arguments))
