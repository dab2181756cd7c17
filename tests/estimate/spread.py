"""What a rank takes when training is spread over two processes (gloo): `python spread.py ddp|fsdp SIZE LENGTH KEY=VALUE
...`, started as two, each with RANK; prints the bytes at the peak."""

import os
import subprocess
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from app.bench import memory
from app.bench.proteins import noisy_batch
from app.ops import select
from app.training.module import CodesignModule
from app.training.strategies import shard
from app.training.undo import Before
from tests.estimate.measured import SMALL, recipe_of, under_its_precision
from tests.training import runs

RANKS = 2


def peaks(strategy: str, arguments: list[str], size: int, length: int, port: int) -> list[int]:
    """Of each rank: bytes above those before the model was made; weights, optimizer, three steps."""
    command = [sys.executable, "-m", "tests.estimate.spread", strategy, str(size), str(length), *arguments]
    where = runs.one_thread() | {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    streams = {"stdout": subprocess.PIPE, "text": True, "cwd": runs.ROOT}
    ranks = [subprocess.Popen(command, env=where | {"RANK": str(rank)}, **streams) for rank in range(RANKS)]
    return [int(rank.communicate(timeout=300)[0].split()[-1]) for rank in ranks]


class Losses(nn.Module):
    """What DDP is to see: a forward pass with the loss."""

    def __init__(self, module: CodesignModule):
        super().__init__()
        self.module = module

    def forward(self, batch) -> torch.Tensor:
        with under_its_precision(self.module):
            return self.module.losses(batch)["train_loss"].mean()


def train(strategy: str, arguments: list[str], size: int, length: int) -> None:
    recipe = recipe_of(*arguments)
    module = CodesignModule(recipe).train()
    if strategy == "fsdp":
        shard(module.model, init_device_mesh("cpu", (RANKS,)))
    loss = Losses(module)
    loss = nn.parallel.DistributedDataParallel(loss) if strategy == "ddp" else loss
    optimizer, batch = module.configure_optimizers(), noisy_batch(length, size, recipe.flow)
    for _ in range(3):
        loss(batch).backward()
        before = Before(optimizer)
        optimizer.step()
        del before
        optimizer.zero_grad()


def main(strategy: str, size: str, length: str, *arguments: str) -> None:
    torch.set_num_threads(1)
    memory.return_what_is_freed()
    dist.init_process_group("gloo")
    with select.using(recipe_of(*arguments).kernels):
        train(strategy, [*arguments], 1, SMALL)
        taken = memory.peak_bytes(lambda: train(strategy, [*arguments], int(size), int(length)), torch.device("cpu"))
    dist.barrier()
    dist.destroy_process_group()
    print(taken, flush=True)
    os._exit(0)  # gloo's threads


if __name__ == "__main__":
    main(*sys.argv[1:])
