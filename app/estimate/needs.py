"""FLOPs and memory of a model's passes, of any batch size and length, found by going through them without numbers."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from app.chem.residues import NUM_TOKENS
from app.devices import NVIDIA, as_if
from app.estimate.autocast import Autocast
from app.estimate.outline import Traced
from app.estimate.spread import ALONE, Spread, bytes_of
from app.estimate.trace import Trace, backward
from app.model.codesign import CodesignModel
from app.ops import outline, select
from app.ops.settings import KernelSettings
from app.types import NoisyBatch, Prediction

MOMENTS = 2
"""Numbers that AdamW keeps of each weight, in the weight's own type."""

FRAGMENTS = 1.05
"""What memory of tensors that come and go takes for each byte in use: freed blocks do not always fit the next ones."""


@dataclass(frozen=True)
class Need:
    """Of one pass: FLOPs, and bytes at the peak, those that are there all the time included."""

    flops: float
    peak: int


class Needs:
    """What a model's passes need on a device. Nothing of their size is allocated, and the device need not be there.

    All tensors are without numbers (on "meta"), while operations choose their backends as on the device
    (`devices.as_if`), and loops over slices are gone through once (`app.ops.outline`). What torch's operators use
    within themselves is not seen, nor is a compiler's work.
    """

    def __init__(
        self,
        make: Callable[[], CodesignModel],
        loss: Callable[[Prediction, NoisyBatch], Tensor],
        device: str,
        kernels: KernelSettings,
        *,
        half: bool,
        accumulates: bool,
        averages: bool = False,
        spread: Spread = ALONE,
    ):
        """make: the model. loss: what it is trained by, a number. device: its type. half: under autocast to bfloat16.
        accumulates: gradients of earlier batches are there already in the forward pass. averages: a moving average of
        the weights is kept in float32. spread: over how many devices; what is told is of each of them.

        Raises UserError for what does not make a model.
        """
        self._loss = loss
        self._device, self._kernels, self._half, self._accumulates = device, kernels, half, accumulates
        self.spread, self._trace, self._autocast = spread, Trace(), Autocast(device)
        with self._tracing():
            self.model = make()
        weights = [x for x in self.model.parameters() if x.requires_grad]
        self.parameters = sum(x.numel() for x in self.model.parameters())
        own = [spread.own(x) * x.element_size() for x in weights]
        self._whole = self._trace.bytes
        self.weights = self._whole - bytes_of(weights) + sum(own)
        self.optimizer = MOMENTS * sum(own)
        self.average = torch.float32.itemsize * sum(map(spread.own, self.model.parameters())) if averages else 0
        self.exchange = spread.exchange(self.model)
        self.language = 0
        if self.model.esm is not None:
            with self._tracing():
                self.model.esm.language.outline(device)
            self.language = self._trace.bytes - self._whole
        # In its step AdamW works out one more number of each weight: on a GPU of all at once, elsewhere one by one.
        # Weights and moments are copied before, so that a step which fails can be taken back.
        self._stepping = sum(own) + (sum(own) if device == NVIDIA else max(own, default=0))
        self._stepping += sum(own) + self.optimizer
        self.backends: dict[str, list[str]] = {}

    @property
    def resident(self) -> int:
        """Bytes that training holds whatever the batch: weights, their average, AdamW's moments, the language model,
        what devices exchange."""
        return self.weights + self.average + self.optimizer + self.language + self.exchange

    def sampling(self, size: int, length: int) -> Need:
        """One forward pass in inference, on one device, after what sampling makes of a batch once for all its steps."""
        with self._tracing(), torch.no_grad():
            self.model.eval()
            batch = self._batch(size, length)
            self._trace.restart()
            with self._autocast.forward(enabled=self._half):
                self.model(batch, self.model.fixed(batch))
            return self._need()

    def training(self, size: int, length: int) -> Need:
        """Forward and backward pass of a training step, and the optimizer's step, which takes more where a batch is
        small."""
        passes = self.passes(size, length)
        peak = max(passes.peak + self.average + self.optimizer + self.exchange, self.resident + self._stepping)
        return Need(passes.flops, peak)

    def passes(self, size: int, length: int) -> Need:
        """Forward and backward pass beside the weights; what checkpointing does again counts as done. The pass without
        gradients that some steps begin with, for self-conditioning, takes less memory; its FLOPs do not count.
        """
        with self._tracing():
            self.model.train()
            batch = self._batch(size, length)
            with self._gradients():
                self._trace.restart()
                with self._autocast.forward(enabled=self._half):
                    loss = self._loss(self.model(batch), batch)
                backward([loss], [torch.ones_like(loss)])
                need = self._need()
                del loss
            return Need(need.flops, need.peak - self._whole + self.weights)

    @contextmanager
    def _gradients(self) -> Iterator[None]:
        """Those of earlier batches are there first, beside the new ones, which come whole; of shards one device keeps
        its part."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        kept = [weight.new_empty(self.spread.own(weight)) for weight in weights if self._accumulates]

        def keep(weight: Tensor) -> None:
            kept.append(weight.new_empty(self.spread.own(weight)))
            weight.grad = None

        hooks = [weight.register_post_accumulate_grad_hook(keep) for weight in weights if self.spread.shards]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for weight in weights:
                weight.grad = None

    def _need(self) -> Need:
        """Of what was traced since the last restart, whole weights and the language model included."""
        base = self._whole + self.language
        for choice in select.choices():
            served = self.backends.setdefault(choice.operation, [])
            if choice.backend not in served:
                served.append(choice.backend)
        return Need(self._trace.flops, base + int(FRAGMENTS * (self._trace.peak - base)))

    def _batch(self, size: int, length: int) -> NoisyBatch:
        gc.collect()  # what checkpointing leaves behind, which refers to itself
        if self.model.esm is not None:
            self.model.esm.language.outline(self._device, size, length)
        return noisy_batch(size, length)

    @contextmanager
    def _tracing(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(select.using(self._kernels))
            stack.enter_context(outline.using(Traced(self._trace)))
            stack.enter_context(as_if(self._device))
            stack.enter_context(torch.device("meta"))
            stack.enter_context(self._trace)
            if self._half:
                stack.enter_context(self._autocast)
            yield


def noisy_batch(size: int, length: int) -> NoisyBatch:
    """A batch of the shape, one chain an example, without padding; its numbers mean nothing."""

    def floats(*shape: int) -> Tensor:
        return torch.zeros(size, length, *shape)

    def integers() -> Tensor:
        return torch.zeros(size, length, dtype=torch.int64)

    return NoisyBatch(
        **{name: torch.zeros(size, 1) for name in ("so3_t", "r3_t", "cat_t")},
        **{name: floats() for name in ("res_mask", "diffuse_mask", "plddt_mask")},
        **{name: floats(3) for name in ("trans_t", "trans_sc", "trans_1")},
        **{name: floats(3, 3) for name in ("rotmats_t", "rotmats_1")},
        **{name: integers() for name in ("chain_idx", "res_idx", "aatypes_t", "aatypes_1")},
        aatypes_sc=floats(NUM_TOKENS),
    )
