"""Throughput of sampling: seconds a design of `STEPS` steps takes, from fewer steps.

`max_error` is the largest difference of a design's CA from what the reference makes in float32 of the same seed, after
`MEASURED` steps, in angstrom. Steps amplify differences, and a token drawn otherwise changes all that follows.
"""

import torch

from app.bench.case import OF_MODELS, REFERENCE, Case, Job, Outputs, Point, Sizes, largest_difference, under
from app.bench.models import Made, model_backends
from app.bench.proteins import noisy_batch
from app.bench.timing import medians
from app.devices import CPU, MPS, NVIDIA
from app.sampling import sample

STEPS = 500
MEASURED = 10
MOST_DESIGNS = 512
_GAIN = 1.03  # what a batch twice as large has to bring to be worth it


def cases() -> list[Case]:
    sizes = {
        CPU: Sizes((100,)),
        MPS: Sizes((100,)),
        NVIDIA: Sizes((100, 300), ("float32", "bfloat16"), batch=None),
    }
    return [Case("sampling", sampling_job, model_backends, sizes, OF_MODELS)]


def sampling_job(point: Point) -> Job:
    """The reference makes designs one at a time, as Multiflow does, unless the point gives a batch."""
    made = Made.at(point)
    sizes: dict[str, int] = {}

    def batch(backend: str) -> int:
        if point.batch is not None or backend == REFERENCE:
            return point.size
        if backend not in sizes:
            sizes[backend] = best_batch(made, backend, point)
        return sizes[backend]

    def designs(backend: str, size: int, dtype: torch.dtype) -> Outputs:
        with under(made.batch.device, dtype):
            found = sample(
                made.called(backend),
                lengths=[point.length] * size,
                steps=MEASURED,
                sampler=made.recipe.sampler,
                device=made.batch.device,
                keep_path=False,
            )
        return {"positions": found.path_trans[0]}

    return Job(
        run=lambda backend: designs(backend, batch(backend), point.torch_dtype),
        outputs=lambda backend, dtype: designs(backend, batch(backend), dtype),
        error=largest_difference,
        batch=batch,
        seconds=lambda backend, seconds: seconds / batch(backend) * STEPS / MEASURED,
    )


def best_batch(made: Made, backend: str, point: Point) -> int:
    """The number of designs at once that makes most of them in a second: doubled while memory allows and it brings."""
    best, rate = 1, 0.0
    for size in (2**power for power in range(MOST_DESIGNS.bit_length())):
        try:
            seconds = _seconds_of_call(made, backend, point, size)
        except torch.OutOfMemoryError:
            break
        if size / seconds < rate * _GAIN:
            break
        best, rate = size, size / seconds
    if point.device == NVIDIA:
        torch.cuda.empty_cache()
    return best


@torch.no_grad()
def _seconds_of_call(made: Made, backend: str, point: Point, size: int) -> float:
    batch = noisy_batch(point.length, size, made.recipe.flow).to(made.batch.device)
    model = made.called(backend)

    def call() -> None:
        with under(batch.device, point.torch_dtype):
            model(batch)

    call()
    return medians({backend: call}, batch.device, repeats=2)[backend]
