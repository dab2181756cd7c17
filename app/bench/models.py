"""Whole models of a recipe: one forward pass, one training step's forward and backward.

`max_error` is the largest difference from the reference in float32 with the same weights and inputs: in the forward
pass that of positions (angstrom) and logits, whichever is larger; in training that of any parameter's gradient, as a
share of the largest entry of all gradients, with dropout off. bfloat16 and float16 mean autocast: geometry stays
float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from app.bench.case import (
    AUTO,
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
)
from app.bench.proteins import model_of, noisy_batch, recipe_of
from app.bench.recorded import Recorded
from app.devices import CPU, MPS, NVIDIA, has_cuda_graphs
from app.errors import UserError
from app.losses.codesign import losses
from app.ops import select
from app.sampling.graph import WARM_UP
from app.sampling.prepared import prepared
from app.training.recipe import Recipe
from app.training.recorded import RecordedPasses, unrecordable
from app.types import NoisyBatch, Prediction


def cases() -> list[Case]:
    both = ("float32", "bfloat16")
    forward = {CPU: Sizes((128, 256), both), MPS: Sizes((128, 256)), NVIDIA: Sizes((128, 256, 512), both)}
    train = {CPU: Sizes((128, 256)), MPS: Sizes((128, 256)), NVIDIA: Sizes((128, 256, 384), both)}
    checkpointed = {CPU: Sizes((256,)), MPS: Sizes((256,)), NVIDIA: Sizes((384,), both)}
    forward_compiled = {CPU: Sizes((256,)), MPS: Sizes((256,)), NVIDIA: Sizes((256,), ("bfloat16",))}
    train_faster = {CPU: Sizes((256,)), MPS: Sizes((256,)), NVIDIA: Sizes((384,), ("bfloat16",))}
    made = {
        "model-forward": (forward_job, forward),
        "model-forward-compiled": (partial(forward_job, compiled=True), forward_compiled),
        "model-train": (train_job, train),
        "model-train-checkpointed": (partial(train_job, checkpoint=True), checkpointed),
        "model-train-compiled": (partial(train_job, compiled=True), train_faster),
        "model-train-recorded": (partial(train_job, recorded=True), train_faster),
        "model-train-compiled-recorded": (partial(train_job, compiled=True, recorded=True), train_faster),
    }
    return [Case(name, job, model_backends, sizes, OF_MODELS) for name, (job, sizes) in made.items()]


def model_backends(device: str) -> list[str]:
    return [REFERENCE, AUTO]


def forward_job(point: Point, compiled: bool = False) -> Job:
    """compiled: all but the reference run under torch.compile; on an NVIDIA GPU their launches are recorded, too, as in
    sampling."""
    made = Made.at(point)
    calls: dict[tuple[str, torch.dtype], Callable[[], Prediction]] = {}

    @torch.no_grad()
    def run(backend: str, dtype: torch.dtype = point.torch_dtype) -> Outputs:
        if (backend, dtype) not in calls:
            calls[backend, dtype] = made.forward(dtype, compiled and backend != REFERENCE)
        prediction = calls[backend, dtype]()
        logits = prediction.pred_logits
        return {"positions": prediction.pred_trans} | ({} if logits is None else {"logits": logits})

    return Job(run, run, largest_difference, batch=lambda backend: point.size, settles=WARM_UP * compiled)


def train_job(point: Point, checkpoint: bool | None = None, compiled: bool = False, recorded: bool = False) -> Job:
    """checkpoint: every block's activations are dropped and made again in the backward pass; None: as in the recipe.
    compiled: all but the reference run under torch.compile. recorded: all but the reference are replayed, as with
    `cuda_graph=true`, and gradients are those of a replay."""
    made = Made.at(point, checkpoint)
    models = Trained(made.model, compiled, point)
    recorders: dict[str, RecordedPasses] = {}

    def of_model(backend: str, batch: NoisyBatch) -> dict[str, Tensor]:
        return losses(models(backend)(batch), batch, made.recipe.loss, made.recipe.flow.half_turn)

    def step(backend: str, dtype: torch.dtype = point.torch_dtype) -> None:
        made.model.zero_grad(set_to_none=True)
        with under(made.batch.device, dtype):
            loss = of_model(backend, made.batch)["train_loss"].mean()
        loss.backward()

    def recorder(backend: str) -> RecordedPasses:
        return RecordedPasses(lambda batch, _: of_model(backend, batch), made.model.parameters())

    def replay(passes: RecordedPasses, dtype: torch.dtype) -> None:
        made.model.zero_grad(set_to_none=True)
        with under(made.batch.device, dtype):
            passes(made.batch, conditioned=False, weight=1.0)
        if not passes.records:
            raise UserError("memory does not suffice to record it")

    def run(backend: str) -> None:
        made.model.train()
        if recorded and backend != REFERENCE:
            if backend not in recorders:
                recorders[backend] = recorder(backend)
            replay(recorders[backend], point.torch_dtype)
        else:
            step(backend)

    def outputs(backend: str, dtype: torch.dtype) -> Outputs:
        made.model.eval()
        if recorded and backend != REFERENCE:
            passes = recorder(backend)
            for _ in range(WARM_UP + 1):
                replay(passes, dtype)
        else:
            step(backend, dtype)
        gradients = {name: one.grad for name, one in made.model.named_parameters() if one.grad is not None}
        made.model.zero_grad(set_to_none=True)
        return gradients

    def refuses(backend: str) -> str | None:
        return unrecordable(made.model, point.torch_device, "auto") if recorded and backend != REFERENCE else None

    return Job(
        run,
        outputs,
        largest_share,
        refuses,
        batch=lambda backend: point.size,
        apart=True,
        settles=WARM_UP if compiled or recorded else 0,
    )


class Trained:
    """`models(backend)`: the model as that backend trains it, compiled if so wanted and if it is not the reference."""

    def __init__(self, model: nn.Module, compiled: bool, point: Point):
        self.plain, self.compiled = model, torch.compile(model) if compiled else None
        self.point, self._ready = point, set()

    def __call__(self, backend: str) -> Callable[[NoisyBatch], Prediction]:
        if backend not in self._ready:  # as a run does it before its first step
            for dtype in {torch.float32, self.point.torch_dtype}:
                select.prepare(self.point.torch_device, dtype, backward=True, used=select.used_by(self.plain))
            self._ready.add(backend)
        return self.plain if self.compiled is None or backend == REFERENCE else self.compiled


@dataclass
class Made:
    """A model and a batch on the device."""

    recipe: Recipe
    model: nn.Module
    batch: NoisyBatch

    @classmethod
    def at(cls, point: Point, checkpoint: bool | None = None) -> "Made":
        recipe = recipe_of(point.recipe)
        if checkpoint is not None:
            recipe = recomputing(recipe, checkpoint)
        batch = noisy_batch(point.length, point.size, recipe.flow)
        return cls(recipe, model_of(recipe).to(point.torch_device), batch.to(point.torch_device))

    def forward(self, dtype: torch.dtype, compiled: bool) -> Callable[[], Prediction]:
        """One forward pass, as sampling makes it."""
        precision = str(dtype).removeprefix("torch.")
        ready = prepared(self.model, precision=precision, compile=compiled, cuda_graph=False)
        call = partial(ready, self.batch)
        return Recorded(call) if compiled and has_cuda_graphs(ready.device) else call


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
