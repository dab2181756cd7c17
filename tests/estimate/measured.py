"""What real passes take, in processes of their own or counted tensor by tensor."""

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from app.bench import memory
from app.bench.proteins import noisy_batch
from app.config.compose import compose
from app.ops import select
from app.training.module import CodesignModule
from app.training.recipe import Recipe, parse_recipe
from app.training.resume import RUN_KEYS
from app.training.undo import Before

SMALL = 24
"""Residues of the passes that load what is loaded at first use."""


def recipe_of(*arguments: str) -> Recipe:
    return parse_recipe({key: value for key, value in compose("train", arguments).items() if key not in RUN_KEYS})


def peak_of_training(arguments: list[str], size: int, length: int) -> int:
    """Bytes of the process above those before the model was made: weights, optimizer, two steps."""
    return _peak(_train, recipe_of(*arguments), size, length)


def peak_of_sampling(arguments: list[str], size: int, length: int) -> int:
    return _peak(_sample, recipe_of(*arguments), size, length)


def _peak(run, recipe: Recipe, size: int, length: int) -> int:
    torch.set_num_threads(1)
    memory.return_what_is_freed()
    with select.using(recipe.kernels):
        run(recipe, 1, SMALL)
        return memory.peak_bytes(lambda: run(recipe, size, length), torch.device("cpu"))


def _train(recipe: Recipe, size: int, length: int) -> None:
    module = CodesignModule(recipe).train()
    optimizer, batch = module.configure_optimizers(), noisy_batch(length, size, recipe.flow)
    for _ in range(2):
        step(module, batch)
        before = Before(optimizer)
        optimizer.step()
        del before
        optimizer.zero_grad()


def _sample(recipe: Recipe, size: int, length: int) -> None:
    call(CodesignModule(recipe).eval(), noisy_batch(length, size, recipe.flow))


def step(module: CodesignModule, batch) -> None:
    with under_its_precision(module):
        loss = module.losses(batch)["train_loss"].mean()
    loss.backward()


def call(module: CodesignModule, batch) -> None:
    with torch.no_grad(), under_its_precision(module):
        module.model(batch, module.model.fixed(batch))


def under_its_precision(module: CodesignModule) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=module.recipe.trainer.precision == "bf16-mixed")


def counter() -> FlopCounterMode:
    """torch's counter, told of the one kernel of its own that it does not know."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(display=False, custom_mapping={fused: _forward, backward: _backward})


def _forward(q, k, v, *_, out_shape=None, **__) -> int:
    return sdpa_flop_count(q, k, v)


def _backward(grad, q, k, v, *_, out_shape=None, **__) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)
