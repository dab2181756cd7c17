"""What a run takes and what fits, in numbers and in words."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from app.devices import CPU, MPS, NVIDIA
from app.estimate.largest import largest
from app.estimate.needs import Needs

MEGABYTE, GIGABYTE = 2**20, 2**30

OWN = {CPU: 0.75 * GIGABYTE, MPS: 0.75 * GIGABYTE, NVIDIA: 1.0 * GIGABYTE}
"""What a program takes besides: Python and its libraries; on a GPU CUDA's context and its libraries' workspaces."""


@dataclass(frozen=True)
class Estimate:
    """Of a batch of one length. FLOPs count additions and multiplications of matrix products; MB are 2^20 bytes."""

    recipe: str
    device: str
    precision: str
    length: int
    batch: int
    devices: int  # that train together; what follows is of each of them
    strategy: str | None  # ddp or fsdp
    parameters: int  # a language model's left out
    flops_forward: float  # a forward pass in inference
    flops_train: float  # forward and backward pass of a training step, what is recomputed included
    memory_train_mb: float
    memory_sample_mb: float  # on one device
    max_batch: int | None  # trained at this length; None where the device's memory is not known
    max_length: int | None  # trained with one example a batch
    batch_by_loader: int  # what data.loader makes of examples of this length
    memory_device_mb: float | None
    memory_parts_mb: dict[str, float]  # of training, by what takes them
    kernels: dict[str, list[str]]  # backends that served, by operation

    def lines(self) -> list[str]:
        """For people."""
        parts = {name.replace("_", " "): in_megabytes(mb) for name, mb in self.memory_parts_mb.items() if mb}
        said = [
            f"{self.recipe}: {self.parameters / 1e6:.2f} million parameters",
            f"batch of {self.batch} x {self.length} residues on {self._where()} in {self.precision}",
            f"a forward pass {in_flops(self.flops_forward)}, a training step {in_flops(self.flops_train)}",
            f"memory in training {in_megabytes(self.memory_train_mb)}: "
            + ", ".join(f"{name} {size}" for name, size in parts.items()),
            f"memory in sampling {in_megabytes(self.memory_sample_mb)}",
        ]
        if self.memory_device_mb is None:
            said.append("what fits is not known: no such device here; say by memory_gb=... how much memory it has")
        else:
            most = f"batches of up to {self.max_batch}" if self.max_batch else "no batch"
            longest = f"up to {self.max_length}" if self.max_length else "no length"
            said.append(
                f"in the device's {in_megabytes(self.memory_device_mb)}, training fits {most} at {self.length}"
                f" residues, and chains of {longest}, one a batch"
            )
            if self.batch_by_loader > max(self.max_batch, 1):
                said.append(
                    f"warning: data.loader makes batches of {self.batch_by_loader} at {self.length} residues: lower"
                    " data.loader.max_residues_squared or data.loader.max_batch_size"
                )
        if self.kernels:
            took = (f"{name}={'+'.join(backends)}" for name, backends in sorted(self.kernels.items()))
            said.append(f"kernels: {', '.join(took)}")
        return said

    def _where(self) -> str:
        return f"each of {self.devices} {self.device} by {self.strategy}" if self.strategy else self.device


def room(device: str, memory: int) -> float:
    """Bytes of a device's memory that a model and its batches can have."""
    return max(0.0, memory - OWN[device])


def estimate(
    needs: Needs,
    *,
    recipe: str,
    device: str,
    precision: str,
    devices: int,
    strategy: str | None,
    length: int,
    batch: int,
    batch_by_loader: int,
    memory: int | None,
) -> Estimate:
    """memory: bytes that the device has, None where that is not known."""
    sampling, training = needs.sampling(batch, length), needs.training(batch, length)
    most = longest = None
    if memory is not None:
        most, longest = _fitting(needs, room(device, memory), length, {(batch, length): training.peak})
    parts = {"weights": needs.weights, "moving_average": needs.average, "optimizer": needs.optimizer}
    parts |= {"language_model": needs.language, "exchange_between_devices": needs.exchange}
    parts["activations_and_gradients"] = training.peak - needs.resident
    return Estimate(
        recipe=recipe,
        device=device,
        precision=precision,
        length=length,
        batch=batch,
        devices=devices,
        strategy=strategy,
        parameters=needs.parameters,
        flops_forward=sampling.flops,
        flops_train=training.flops,
        memory_train_mb=_mb(training.peak),
        memory_sample_mb=_mb(sampling.peak),
        max_batch=most,
        max_length=longest,
        batch_by_loader=batch_by_loader,
        memory_device_mb=None if memory is None else _mb(memory),
        memory_parts_mb={name: _mb(bytes) for name, bytes in parts.items()},
        kernels=needs.backends,
    )


def _fitting(needs: Needs, room: float, length: int, known: dict[tuple[int, int], int]) -> tuple[int, int]:
    """The largest batch at a length, and the greatest length of one example, that are trained within so many bytes."""

    def need(size: int, length: int) -> int:
        if (size, length) not in known:
            known[size, length] = needs.training(size, length).peak
        return known[size, length]

    def search(of: Callable[[int], int], first: dict[int, float], power: float) -> int:
        return largest(of, room, needs.resident, first, power)

    at_length = {size: bytes for (size, long), bytes in known.items() if long == length}
    most = search(lambda size: need(size, length), at_length, power=1)
    alone = {long: bytes for (size, long), bytes in known.items() if size == 1} or {length: need(1, length)}
    grows_with_pairs = needs.model.edge_embed is not None
    return most, search(lambda long: need(1, long), alone, power=2 if grows_with_pairs else 1)


def _mb(bytes: float) -> float:
    return round(bytes / MEGABYTE, 1)


def in_megabytes(mb: float) -> str:
    return f"{mb / 1024:,.1f} GB" if mb >= 10_000 else f"{mb:,.0f} MB"


def in_flops(number: float) -> str:
    power = min(int(math.log10(max(number, 1))) // 3, 5)
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P'][power]}FLOP"
