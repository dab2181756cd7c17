"""`python -m app estimate`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, Field

from app.config.compose import compose, typed_overrides
from app.config.validate import parse
from app.errors import UserError


class Request(BaseModel):
    """What is asked for besides a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(256, ge=1, le=65_536)
    batch: int = Field(1, ge=1, le=65_536)
    device: str | None = None  # the trainer's
    memory_gb: float | None = Field(None, gt=0, allow_inf_nan=False)  # the device's own


def estimate(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE ...", help="As train.py takes them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Say what a recipe takes before it is run: parameters, FLOPs, memory, and what fits. Nothing of its size is made.

    recipe=NAME, any other setting of train.py, and: length=256 (residues), batch=1 (examples), device=auto|cpu|mps|cuda
    (default: the trainer's; it need not be there), memory_gb=80 (of the device, in 2^30 bytes; default: what this
    machine's has, of a CPU all of its RAM).

    FLOPs are additions and multiplications in products of matrices. Those of a training step are of its forward and
    backward pass, what checkpointing does again included, the pass for self-conditioning not.

    Memory, in MB of 2^20 bytes, is what tensors take at the peak: in training with gradients and AdamW's moments, in
    sampling that of a model call in the same precision. What the program takes itself comes on top, some 750 MB, on an
    NVIDIA GPU 1 GB. max_batch (at this length) and max_length (one chain a batch) are of training, leave room for
    that, and are found to within 3 % of the memory.

    With trainer=ddp|fsdp and trainer.devices=N (trainer.num_nodes=M) all of it is of each device, batch and length
    too; memory in sampling is that of one device alone, on which designs are made.

    Kernels are those that the recipe names, or what auto takes here; for a GPU that is not here, plain PyTorch's.
    A compiler's work is not seen: with compile=true it takes less.
    """
    request, overrides = _divided(keys or [])
    from app.estimate.estimate import GIGABYTE  # torch: only for commands that need it
    from app.training.estimate import estimate_of, needs_of
    from app.training.recipe import parse_recipe
    from app.training.resume import RUN_KEYS
    from app.training.run import refuse_idle

    config = compose("train", overrides, partial=True)
    for key in RUN_KEYS:
        config.pop(key)
        if key in typed_overrides(overrides):
            raise UserError(f"{key} has no effect on an estimate: leave it out")
    recipe = parse_recipe(config)
    device = _type_of(request.device, recipe.trainer.accelerator)
    needs = needs_of(recipe, device)
    refuse_idle(overrides, needs.model, recipe)
    memory = None if request.memory_gb is None else int(request.memory_gb * GIGABYTE)
    found = estimate_of(recipe, needs, device, length=request.length, batch=request.batch, memory=memory)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print("\n".join(found.lines()))


def _divided(keys: Sequence[str]) -> tuple[Request, list[str]]:
    """What is asked for, and the rest, which is for the recipe. Raises UserError."""
    own: dict[str, str] = {}
    rest = []
    for text in keys:
        key, equals, value = text.partition("=")
        if not equals or key not in Request.model_fields:
            rest.append(text)
        elif key in own:
            raise UserError(f"{key} is given twice: give it once")
        else:
            own[key] = value
    return parse(Request, own), rest


def _type_of(device: str | None, trainers: str) -> str:
    """The device's type; "auto" is the best there is here. Raises UserError for one that is unknown."""
    from app.devices import DEVICE_TYPES, choose

    key, name = ("device", device) if device is not None else ("trainer.accelerator", trainers)
    return DEVICE_TYPES.get(name) or choose(name, key).type
