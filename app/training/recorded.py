"""Passes whose launches are recorded in CUDA graphs: one for each shape of batches that comes again.

A training step launches thousands of kernels, most of them small, and where a batch is small the host that launches
them one by one takes longer than the GPU that runs them. A replay launches them all together.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from app.chem.residues import UNKNOWN
from app.config.keys import one_line
from app.devices import free_memory, full_precision, has_cuda_graphs, is_out_of_memory
from app.errors import UserError
from app.model.stack import recomputes
from app.sampling.graph import WARM_UP
from app.types import NoisyBatch

log = logging.getLogger(__name__)

MULTIPLE = 16
"""Residues to whose multiples batches are padded, so that their shapes come again."""

MOST = 64
"""Graphs; each takes some megabytes of memory that no other one uses."""

_TIMES = ("so3_t", "r3_t", "cat_t")

Losses = Callable[[NoisyBatch, bool], dict[str, Tensor]]
"""A batch, and whether the model is to condition on its own first estimate -> losses by name, `train_loss` among them,
each [B]."""


class RecordedPasses:
    """Forward and backward passes of batches of a model in training, replayed from the third one of a shape on, with
    the model's own estimate to condition on or without; until then, and where there are too many shapes, they are
    launched as they come. Either way they give the same numbers, bit for bit.

    All graphs share their memory, since what one leaves is copied before the next is replayed, and they read the
    parameters where these lie: optimizers and averages change them in place. Dropout draws from torch's generator on
    the device, which a replay reads anew.
    """

    def __init__(self, losses: Losses, parameters: Iterable[nn.Parameter], records: bool = True):
        """records: whether anything is to be; else all are launched, as those are that come first."""
        self.losses, self.parameters = losses, [one for one in parameters if one.requires_grad]
        self.records, self.replays, self.launches = records, 0, 0
        self._seen: Counter = Counter()
        self._graphs: dict[tuple[int, int, bool], _Graph] = {}
        self._pool, self._gradients, self._places = None, [], []

    def __call__(self, batch: NoisyBatch, conditioned: bool, weight: float) -> dict[str, Tensor]:
        """Losses of a batch, each [B], detached. The gradient of `train_loss`'s mean, times the weight, becomes `.grad`
        of the parameters, which must have none.

        Raises UserError where passes cannot be recorded.
        """
        batch = padded(batch, MULTIPLE).map(torch.Tensor.contiguous)  # as what is recorded will find it
        graph = self._graph(batch, conditioned, weight)
        if graph is None:
            self.launches += 1
            losses = self.losses(batch, conditioned)
            with full_precision(batch.device):  # autocast has chosen the types already
                (losses["train_loss"].mean() * weight).backward()
            return {name: values.detach() for name, values in losses.items()}
        self.replays += 1
        losses = {name: values.clone() for name, values in graph.replay(batch, weight).items()}
        gradients = [torch.empty_like(gradient) for gradient in self._gradients]
        torch._foreach_copy_(gradients, self._gradients)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return losses

    @property
    def serves(self) -> bool:
        """Whether passes are replayed."""
        return self.records and self.replays > 0

    @property
    def holds_memory(self) -> bool:
        return bool(self._graphs)

    def give_up(self, device: torch.device) -> None:
        """Free the memory of what is recorded, since something else lacks it, and record nothing more."""
        self.records = False
        self.forget()
        free_memory(device)
        log.warning(
            "cuda_graph: out of memory beside what is recorded: going on without, results are the same (smaller batches"
            " leave room: data.loader.max_residues_squared)"
        )

    def forget(self) -> None:
        """Free the memory of what is recorded; what comes again is recorded anew."""
        self._graphs.clear()
        self._gradients, self._pool = [], None

    def in_words(self) -> str:
        return f"cuda_graph: {self.replays} of {self.replays + self.launches} passes were replayed"

    def _graph(self, batch: NoisyBatch, conditioned: bool, weight: float) -> "_Graph | None":
        """That of the batch's shape, recorded now if it is time to, or None."""
        if not self.records:
            return None
        if self._graphs and self._places != self._where():
            self.forget()
        shape = (*batch.res_mask.shape, conditioned)
        if shape in self._graphs:
            return self._graphs[shape]
        self._seen[shape] += 1
        if self._seen[shape] <= WARM_UP or len(self._graphs) == MOST:
            return None
        try:
            self._graphs[shape] = self._recorded(batch, conditioned, weight)
            return self._graphs[shape]
        except Exception as error:
            if not is_out_of_memory(error):  # what such an error leaves behind on the device is not to be built on
                raise UserError(
                    f"cuda_graph=true: this model's passes cannot be recorded ({type(error).__name__}:"
                    f" {one_line(error)[:300]}): set cuda_graph=false"
                ) from error
        self.give_up(batch.device)
        return None

    def _recorded(self, batch: NoisyBatch, conditioned: bool, weight: float) -> "_Graph":
        if not self._graphs:
            self._pool = torch.cuda.graph_pool_handle()
            self._gradients = [torch.empty_like(parameter) for parameter in self.parameters]
            self._places = self._where()

        def passes(batch: NoisyBatch, weight: Tensor) -> dict[str, Tensor]:
            losses = self.losses(batch, conditioned)
            with full_precision(batch.device):
                loss = losses["train_loss"].mean() * weight
                gradients = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
            torch._foreach_copy_(self._gradients, gradients)
            return {name: values.detach() for name, values in losses.items()}

        return _Graph(passes, batch, weight, self._pool)

    def _where(self) -> list[int]:
        return [parameter.data_ptr() for parameter in self.parameters]


class _Graph:
    """What the passes of one shape launch. It reads and writes the same memory at every replay."""

    def __init__(
        self,
        passes: Callable[[NoisyBatch, Tensor], dict[str, Tensor]],
        batch: NoisyBatch,
        weight: float,
        pool: tuple[int, int],
    ):
        """Runs nothing. Raises what torch raises where the passes cannot be recorded."""
        self._batch = batch.map(torch.clone)
        self._weight = torch.full((), weight, device=batch.device)
        self._graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()  # a weight that was cast before would be taken for one that never changes
        try:
            # Other threads load data meanwhile, and may do what cannot be recorded.
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._losses = passes(self._batch, self._weight)
        finally:
            torch.clear_autocast_cache()  # what was cast now is computed at replays only

    def replay(self, batch: NoisyBatch, weight: float) -> dict[str, Tensor]:
        """The losses, until the next replay."""
        for field in dataclasses.fields(batch):
            if isinstance(given := getattr(batch, field.name), Tensor):
                getattr(self._batch, field.name).copy_(given)
        self._weight.fill_(weight)
        self._graph.replay()
        return self._losses


def refuse(model: nn.Module, device: torch.device, strategy: str) -> None:
    """Raises UserError where a model's passes cannot be recorded. strategy: Lightning's name of it."""
    if reason := unrecordable(model, device, strategy):
        raise UserError(f"cuda_graph=true: {reason}: set cuda_graph=false")


def unrecordable(model: nn.Module, device: torch.device, strategy: str) -> str | None:
    """Why a model's passes cannot be recorded, or None."""
    if not has_cuda_graphs(device):
        return f"there are CUDA graphs on NVIDIA GPUs only, not on {device.type}"
    if strategy.startswith("fsdp"):
        return f"with trainer.strategy={strategy} ranks wait for each other within what would be recorded"
    if model.esm is not None:
        return "a language model looks at its tokens on the host"
    if recomputes(model):
        return "a stage with checkpoint: true or edge takes the generator's state, which no replay does"
    return None


def padded(batch: NoisyBatch, multiple: int) -> NoisyBatch:
    """The batch with absent residues at the end, up to a multiple of so many, as `app.data.batching.collate` pads."""
    size, length = batch.res_mask.shape
    if not (more := -length % multiple):
        return batch

    def filler(name: str, value: Tensor) -> Tensor:
        shape = size, more, *value.shape[2:]
        if name.startswith("rotmats"):
            return torch.eye(3, dtype=value.dtype, device=value.device).expand(shape)
        return value.new_full(shape, UNKNOWN if name in ("aatypes_t", "aatypes_1") else 0)

    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    rows = {name: value for name, value in fields.items() if isinstance(value, Tensor) and name not in _TIMES}
    return dataclasses.replace(batch, **{n: torch.cat([value, filler(n, value)], 1) for n, value in rows.items()})
