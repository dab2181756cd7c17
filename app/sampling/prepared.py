"""A model made ready for inference: its precision, compiled or not, its steps captured or not."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from app.devices import NVIDIA, Precision, choose_dtype, has_cuda_graphs
from app.errors import UserError
from app.model.compiled import Compiled
from app.ops import select
from app.types import Prediction

log = logging.getLogger(__name__)


class Prepared:
    """`NoisyBatch -> Prediction`, for `sample`. The module that it runs is not changed: see `prepared`."""

    def __init__(self, model: Callable[..., Prediction], device: torch.device, dtype: torch.dtype):
        self.model, self.device, self.dtype = model, device, dtype
        self.call = model
        self.cuda_graph = False  # whether `sample` is to capture its steps
        self.captured = False  # whether it has
        self.draws_in_inference = getattr(model, "draws_in_inference", False)
        self.has_sequence_head = getattr(model, "has_sequence_head", True)
        self.fixed = getattr(model, "fixed", None)

    def __call__(self, *args, **kwargs) -> Prediction:
        with self.at_its_precision():
            return self.call(*args, **kwargs)

    @property
    def compiled(self) -> bool:
        """Whether calls went through the compiler, and it failed in none."""
        return isinstance(self.call, Compiled) and self.call.served

    def on_capture(self, done: bool) -> None:
        """A step was captured, or it could not be, so that none will be."""
        self.cuda_graph, self.captured = done, self.captured or done

    def at_its_precision(self) -> AbstractContextManager:
        """A context of any number of calls. Weights are cast once in it, where each call alone casts them again."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def prepared(
    model: Callable[..., Prediction],
    *,
    precision: Precision = "float32",
    compile: bool = False,
    cuda_graph: bool | Literal["auto"] = "auto",
    device: torch.device | None = None,
    tell: Callable[[str], None] = log.info,
    **how: Any,
) -> Prepared:
    """The model as a run of sampling is to call it.

    precision: of the network, under autocast; frames and coordinates are float32 in any. "auto": bfloat16 on an NVIDIA
    GPU that has it, else float32. compile: by torch.compile; where that does not work, a warning says so once.
    cuda_graph: capture each batch's step and replay it; "auto": where there is an NVIDIA GPU and the model allows it.
    device: where the model's parameters are, unless they tell. tell: is told when compiling begins. how: further
    arguments of torch.compile.
    Raises UserError for a precision that the device lacks and for cuda_graph=True where nothing can be captured.
    """
    if device is None:
        device = device_of(model)
    ready = Prepared(model, device, choose_dtype(precision, device))
    reason = _not_to_be_captured(model, device)
    if cuda_graph is True and reason:
        raise UserError(f"cuda_graph=true: {reason}: set cuda_graph=auto or cuda_graph=false")
    ready.cuda_graph = cuda_graph is not False and not reason
    if (compile or ready.cuda_graph) and isinstance(model, nn.Module):
        for dtype in {torch.float32, ready.dtype}:
            select.prepare(device, dtype, backward=False, used=select.used_by(model))
    if compile:
        if device.type == NVIDIA:  # hundreds of weights to be rounded, in one kernel instead of one each
            how = {"options": {"combo_kernels": True}} | how
        ready.call = Compiled(model, device, lengths_vary=False, tell=tell, **how)
    return ready


def device_of(model: Callable) -> torch.device:
    """Where a model's parameters are; the CPU for a callable that has none."""
    if isinstance(model, Prepared):
        return model.device
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def _not_to_be_captured(model: Callable, device: torch.device) -> str | None:
    """Why no CUDA graph can hold the model's calls, or None."""
    if not has_cuda_graphs(device):
        return f"there are CUDA graphs on NVIDIA GPUs only, not on {device.type}"
    if getattr(model, "draws_in_inference", False):
        return "this model drops out in inference, and a graph would drop the same at every step"
    return None
