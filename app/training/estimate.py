"""Estimates of a recipe's runs, and a word at their start on what is to be expected."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from app.config.keys import one_line
from app.config.validate import parse
from app.data.batching import LengthBatchSampler
from app.data.loader_settings import LoaderSettings
from app.devices import NVIDIA, how_many, memory_of
from app.errors import UserError
from app.estimate.estimate import MEGABYTE, Estimate, estimate, in_flops, in_megabytes, room
from app.estimate.needs import Needs
from app.estimate.spread import Spread
from app.losses.codesign import losses
from app.model.codesign import CodesignModel
from app.training.recipe import Recipe, TrainerSettings
from app.training.strategies import FSDP
from app.types import NoisyBatch, Prediction

MIXED = "bf16-mixed"


def needs_of(recipe: Recipe, device: str) -> Needs:
    """device: its type. Raises UserError for a recipe that makes no model, and as `spread_of`."""
    half, accumulates = recipe.trainer.precision == MIXED, recipe.trainer.accumulate > 1

    def loss(prediction: Prediction, batch: NoisyBatch) -> Tensor:
        return losses(prediction, batch, recipe.loss, recipe.flow.half_turn)["train_loss"].mean()

    averages, spread = recipe.ema.decay is not None, spread_of(recipe.trainer, device)
    make = partial(CodesignModel, recipe.model)
    return Needs(
        make, loss, device, recipe.kernels, half=half, accumulates=accumulates, averages=averages, spread=spread
    )


def spread_of(trainer: TrainerSettings, device: str) -> Spread:
    """Over how many devices of a type a run is spread. Raises UserError where that is not said and none is here."""
    here = trainer.devices if trainer.devices not in ("auto", -1) else how_many(device)
    if here == 0:
        raise UserError(f"trainer.devices={trainer.devices}: there is none here: say how many, as in trainer.devices=4")
    return Spread(here * trainer.num_nodes, shards=trainer.strategy == FSDP)


def estimate_of(
    recipe: Recipe, needs: Needs, device: str, *, length: int, batch: int = 1, memory: int | None = None
) -> Estimate:
    """Of a recipe's runs. needs: its own. memory: bytes of the device; None asks it. Raises UserError for the recipe's
    data.loader, and where a named backend cannot serve."""
    loader = parse(LoaderSettings, recipe.data.get("loader") or {}, "data.loader")
    return estimate(
        needs,
        recipe=recipe.name,
        device=device,
        precision=recipe.trainer.precision,
        devices=needs.spread.devices,
        strategy=("fsdp" if needs.spread.shards else "ddp") if needs.spread.devices > 1 else None,
        length=length,
        batch=batch,
        batch_by_loader=min(loader.max_batch_size, max(1, loader.max_residues_squared // length**2)),
        memory=memory_of(device) if memory is None else memory,
    )


def expectation(recipe: Recipe, lengths: Sequence[int], loader: LoaderSettings, device: str) -> list[str]:
    """Lines for a run's start: what its largest batch takes, and a warning where that will not fit into the device.

    lengths: of all examples. An estimate that fails is said to, and costs no run.
    """
    try:
        needs = needs_of(recipe, device)
        of_batches = {shape: needs.training(*shape) for shape in largest_batches(lengths, loader)}
    except Exception as error:
        return [f"no estimate of the memory that a step takes ({type(error).__name__}: {one_line(error)[:200]})"]
    (size, length), need = max(of_batches.items(), key=lambda item: item[1].peak)
    memory, shape = memory_of(device), f"{size} x {length} residues"
    of_all = "" if memory is None else f" of {in_megabytes(memory / MEGABYTE)}"
    said = [
        f"expected of the largest batch, {shape}: {in_megabytes(need.peak / MEGABYTE)}{of_all} of memory,"
        f" {in_flops(need.flops)} a step"
    ]
    if memory is not None and need.peak > room(device, memory):
        said.append(
            f"warning: a batch of {shape}, which these data give, will not fit into memory: {_cure(size, device)}"
        )
    return said


def largest_batches(lengths: Sequence[int], loader: LoaderSettings) -> list[tuple[int, int]]:
    """(examples, residues) of the batches that data can give, such that the one that takes most memory is among them:
    the longest, that of most pairs, that of most residues."""
    everything = LengthBatchSampler(lengths, lambda epoch, seed: range(len(lengths)), loader)
    shapes = {(len(batch), max(int(lengths[index]) for index in batch)) for batch in everything.batches(0)}
    by = (lambda shape: shape[1], lambda shape: shape[0] * shape[1] ** 2, lambda shape: shape[0] * shape[1])
    return list(dict.fromkeys(max(shapes, key=key) for key in by))


def _cure(size: int, device: str) -> str:
    if size > 1:
        return "lower data.loader.max_residues_squared or data.loader.max_batch_size"
    half = f", or trainer.precision={MIXED}" if device == NVIDIA else ""
    return f"leave out the longest chains, choose another recipe, or checkpoint: true in its stages{half}"
