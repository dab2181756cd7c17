"""train.py in which memory does not suffice, or numbers are not finite, at chosen batches and ranks.

As a script: `python injected.py FOLDER FAULTS ARGUMENT ...`, FAULTS as JSON, which Lightning can start again for each
further rank. Every rank leaves its weights in FOLDER.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch

from app.config import entry
from app.model.codesign import CodesignModel
from app.training.module import CodesignModule
from app.training.run import train

BLOCK = "trunk.stages.0.1"
LINEAR = f"{BLOCK}.transformer.layers.0.hidden"


@dataclass(frozen=True)
class Fault:
    """where: forward, backward, optimizer (at its start) or midway (in its step) for memory; loss, gradient or module
    for numbers. batch: of the first epoch. above: only with more examples than these at once. times: at most."""

    where: str
    batch: int
    rank: int = 0
    above: int = 0
    times: int = 1000


class Faults:
    """What is to happen, and what did."""

    def __init__(self, faults: Sequence[Fault]):
        self.left = {fault: fault.times for fault in faults}
        self.place, self.size = None, 0

    def strikes(self, *where: str) -> bool:
        for fault, left in self.left.items():
            here = self.place is not None and (fault.batch, fault.rank) == (self.place.batch, self.place.rank)
            if here and self.place.epoch == 0 and fault.where in where and self.size > fault.above and left:
                self.left[fault] -= 1
                return True
        return False


def inject(faults: Sequence[Fault], patch: pytest.MonkeyPatch) -> Faults:
    present = Faults(faults)
    outputs, build, step = CodesignModule.outputs, CodesignModel.__init__, torch.optim.AdamW.step

    def watched(self, batch, place, first=0, last=None):
        present.place, present.size = place, (len(batch.names) if last is None else last) - first
        out = outputs(self, batch, place, first, last)
        if present.strikes("loss"):
            out["loss"] = out["loss"] * float("nan")
            out["losses"]["train_loss"][-1] = float("nan")
        return out

    def in_forward(module, arguments, output):
        if present.strikes("forward"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB (injected)")
        return output * float("nan") if present.strikes("module") else output

    def in_backward(gradient):
        if present.strikes("backward"):
            raise RuntimeError("CUDA error: out of memory (injected)")
        return gradient * float("inf") if present.strikes("gradient") else gradient

    def built(self, *arguments, **keywords):
        build(self, *arguments, **keywords)
        linear = self.get_submodule(LINEAR)
        linear.register_forward_hook(in_forward)
        if not linear.weight.is_meta:
            linear.weight.register_hook(in_backward)

    def stepping(self, closure=None):
        if present.strikes("optimizer"):
            raise torch.OutOfMemoryError("out of memory (injected)")
        if present.strikes("midway"):
            parameters = [p for group in self.param_groups for p in group["params"]]
            for parameter in parameters[len(parameters) // 2 :]:
                parameter.grad = None
            step(self, closure)
            raise torch.OutOfMemoryError("out of memory (injected)")
        return step(self, closure)

    patch.setattr(CodesignModule, "outputs", watched)
    patch.setattr(CodesignModel, "__init__", built)
    patch.setattr(torch.optim.AdamW, "step", stepping)
    return present


def command(folder: Path, faults: Sequence[Fault], *arguments: str) -> list[str]:
    plain = json.dumps([asdict(fault) for fault in faults])
    return [sys.executable, __file__, str(folder), plain, *arguments]


def main(arguments: list[str]) -> int:
    folder, faults, *rest = arguments

    def leave(module) -> None:
        weights = {name: value.full_tensor() if hasattr(value, "full_tensor") else value
                   for name, value in module.state_dict().items()}  # fmt: skip
        torch.save(weights, Path(folder) / f"rank{module.global_rank}.pt")

    with pytest.MonkeyPatch.context() as patch:
        inject([Fault(**fault) for fault in json.loads(faults)], patch)
        patch.setattr(CodesignModule, "on_train_end", leave, raising=False)
        return train(rest)


if __name__ == "__main__":
    entry.run(main)
