"""train.py with noise that belongs to the example, whatever batch and rank it is in; the first step's gradient is kept.

As a script: `python spread.py FILE ARGUMENT ...`, which Lightning can start again for each further rank.
"""

import sys
import zlib
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from app.flow.interpolant import corrupt
from app.training.module import CodesignModule
from app.training.run import train
from app.types import NoisyBatch, ProteinBatch


def noisy(module: CodesignModule, batch: ProteinBatch, generator: torch.Generator, conditioned: bool) -> NoisyBatch:
    whole = corrupt(batch, module.recipe.flow, generator)
    for row, name in enumerate(batch.names):
        length = int(batch.res_mask[row].sum())
        source = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        one = corrupt(batch.map(lambda x, row=row, n=length: x[row : row + 1, :n]), module.recipe.flow, source)
        for field, value in vars(one).items():
            if isinstance(value, Tensor) and value.dim() > 1:
                getattr(whole, field)[row, : value.shape[1]] = value[0]
    return whole


def gradient_of(path: Path, *arguments: str) -> dict[str, Tensor]:
    """The gradient of the first optimizer step of a run, by parameter; kept in a file by the first rank."""

    def on_before_optimizer_step(module: CodesignModule, _optimizer) -> None:
        whole = {
            name: p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad.clone()
            for name, p in module.named_parameters()
        }
        if module.global_rank == 0 and not path.exists():
            torch.save(whole, path)

    before = CodesignModule.noisy
    CodesignModule.noisy, CodesignModule.on_before_optimizer_step = noisy, on_before_optimizer_step
    try:
        assert train([*arguments, "trainer.max_steps=1"]) == 0
    finally:
        CodesignModule.noisy = before
        del CodesignModule.on_before_optimizer_step
    return torch.load(path, weights_only=True) if path.exists() else {}


if __name__ == "__main__":
    gradient_of(Path(sys.argv[1]), *sys.argv[2:])
