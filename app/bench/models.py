"""Whole models of a recipe: one forward pass, one training step's forward and backward.

`max_error` is the largest difference from the reference in float32 with the same weights and inputs: in the forward
pass that of positions (angstrom) and logits, whichever is larger; in training that of any parameter's gradient, as a
share of the largest entry of all gradients, with dropout off. bfloat16 and float16 mean autocast: geometry stays
float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import nn

from app.bench.case import (
    AUTO,
    COMPILED,
    OF_MODELS,
    REFERENCE,
    Case,
    Job,
    Outputs,
    Point,
    Sizes,
    largest_difference,
    largest_share,
    under,
)  # fmt: skip
from app.bench.proteins import model_of, noisy_batch, recipe_of
from app.devices import CPU, MPS, NVIDIA
from app.losses.codesign import losses
from app.training.recipe import Recipe
from app.types import NoisyBatch, Prediction

_HALF_ON_CPU = ("float32", "bfloat16")


def cases() -> list[Case]:
    forward = {
        CPU: Sizes((128, 256), _HALF_ON_CPU),
        MPS: Sizes((128, 256)),
        NVIDIA: Sizes((128, 256, 512), ("float32", "bfloat16")),
    }
    train = {
        CPU: Sizes((128, 256)),
        MPS: Sizes((128, 256)),
        NVIDIA: Sizes((128, 256, 384), ("float32", "bfloat16")),
    }
    checkpointed = {CPU: Sizes((256,)), MPS: Sizes((256,)), NVIDIA: Sizes((384,), ("float32", "bfloat16"))}
    return [
        Case("model-forward", forward_job, model_backends, forward, OF_MODELS),
        Case("model-train", partial(train_job, checkpoint=None), model_backends, train, OF_MODELS),
        Case("model-train-checkpointed", partial(train_job, checkpoint=True), model_backends, checkpointed, OF_MODELS),
    ]


def model_backends(device: str) -> list[str]:
    return [REFERENCE, AUTO, *[COMPILED] * (device == NVIDIA)]


def forward_job(point: Point) -> Job:
    """Compiled, its launches are recorded as well where the device can."""
    made = Made.at(point, mode="reduce-overhead" if point.device == NVIDIA else "default")

    @torch.no_grad()
    def run(backend: str, dtype: torch.dtype = point.torch_dtype) -> Outputs:
        with under(made.batch.device, dtype):
            prediction = made.called(backend)(made.batch)
        logits = prediction.pred_logits
        return {"positions": prediction.pred_trans} | ({} if logits is None else {"logits": logits})

    return Job(run, run, largest_difference, batch=lambda backend: point.size)


def train_job(point: Point, checkpoint: bool | None) -> Job:
    """checkpoint: every block's activations are dropped and made again in the backward pass; None: as the recipe
    has it."""
    made = Made.at(point, checkpoint)

    def step(backend: str, dtype: torch.dtype = point.torch_dtype) -> None:
        made.model.zero_grad(set_to_none=True)
        with under(made.batch.device, dtype):
            prediction = made.called(backend)(made.batch)
            loss = losses(prediction, made.batch, made.recipe.loss, made.recipe.flow.half_turn)["train_loss"].mean()
        loss.backward()

    def run(backend: str) -> None:
        made.model.train()
        step(backend)

    def outputs(backend: str, dtype: torch.dtype) -> Outputs:
        made.model.eval()
        step(backend, dtype)
        gradients = {name: one.grad for name, one in made.model.named_parameters() if one.grad is not None}
        made.model.zero_grad(set_to_none=True)
        return gradients

    return Job(run, outputs, largest_share, batch=lambda backend: point.size)


@dataclass
class Made:
    """A model and a batch on the device."""

    recipe: Recipe
    model: nn.Module
    batch: NoisyBatch
    mode: str  # of torch.compile

    @classmethod
    def at(cls, point: Point, checkpoint: bool | None = None, mode: str = "default") -> "Made":
        recipe = recipe_of(point.recipe)
        if checkpoint is not None:
            recipe = recomputing(recipe, checkpoint)
        batch = noisy_batch(point.length, point.size, recipe.flow)
        return cls(recipe, model_of(recipe).to(point.torch_device), batch.to(point.torch_device), mode)

    def called(self, backend: str) -> Callable[[NoisyBatch], Prediction]:
        return self.compiled if backend == COMPILED else self.model

    @cached_property
    def compiled(self) -> Callable[[NoisyBatch], Prediction]:
        return torch.compile(self.model, mode=self.mode)


def recomputing(recipe: Recipe, checkpoint: bool) -> Recipe:
    """The recipe with checkpointing on or off in every stage of the trunk."""

    def changed(stages: list) -> list:
        return [
            stage.model_copy(
                update={"stages": changed(stage.stages)} if hasattr(stage, "repeat") else {"checkpoint": checkpoint}
            )
            for stage in stages
        ]

    trunk = recipe.model.trunk
    trunk = trunk.model_copy(update={"stages": changed(trunk.stages)})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"trunk": trunk})})
