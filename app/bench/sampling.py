"""Throughput of sampling: seconds a design of `STEPS` steps takes, from fewer steps.

`max_error` is the largest difference of a design's CA from what the reference makes in float32 of the same seed, after
those fewer steps, in angstrom. Steps amplify differences, and a token drawn otherwise changes all that follows.
"""

from functools import partial

import torch

from app.bench.case import (
    AUTO,
    OF_MODELS,
    REFERENCE,
    Case,
    Job,
    Outputs,
    Point,
    Sizes,
    kernels,
    largest_difference,
)
from app.bench.models import Made, model_backends
from app.bench.timing import medians
from app.devices import CPU, MPS, NVIDIA, is_out_of_memory
from app.ops import select
from app.sampling import sample
from app.sampling.prepared import Prepared, prepared

STEPS = 500
MEASURED = {CPU: 5, MPS: 5, NVIDIA: 50}
"""Steps that are timed. More on a GPU, where the first ones record what the others replay."""

MOST_DESIGNS = 512
_GAIN = 1.03  # what a batch twice as large has to bring to be worth it
_TRIED = 4  # steps of the search for the batch


def cases() -> list[Case]:
    sizes = {
        CPU: Sizes((100,)),
        MPS: Sizes((100,)),
        NVIDIA: Sizes((100, 300), ("float32", "bfloat16"), batch=None),
    }
    compiled = {CPU: Sizes((100,)), MPS: Sizes((100,)), NVIDIA: Sizes((100, 300), ("bfloat16",), batch=None)}
    return [
        Case("sampling", sampling_job, model_backends, sizes, OF_MODELS),
        Case("sampling-compiled", partial(sampling_job, compiled=True), model_backends, compiled, OF_MODELS),
    ]


def sampling_job(point: Point, compiled: bool = False) -> Job:
    """The reference makes designs one at a time, as Multiflow does, unless the point gives a batch.

    compiled: all but the reference run under torch.compile.
    """
    runs = Runs(point, compiled)
    steps = MEASURED[point.device]

    def outputs(backend: str, dtype: torch.dtype) -> Outputs:
        return runs(backend, dtype, runs.batch(backend), steps)

    return Job(
        run=lambda backend: outputs(backend, point.torch_dtype),
        outputs=outputs,
        error=largest_difference,
        batch=runs.batch,
        seconds=lambda backend, seconds: seconds / runs.batch(backend) * STEPS / steps,
    )


class Runs:
    """Sampling with a backend, in a dtype, at a batch size; the first design is the same whatever else there is."""

    def __init__(self, point: Point, compiled: bool = False):
        self.point, self.made, self.compiled = point, Made.at(point), compiled
        self.ready: dict[tuple[str, torch.dtype], Prepared] = {}
        self.best: int | None = None

    def __call__(self, backend: str, dtype: torch.dtype, size: int, steps: int) -> Outputs:
        found = sample(
            self._model(backend, dtype),
            lengths=[self.point.length] * size,
            steps=steps,
            sampler=self.made.recipe.sampler,
            keep_path=False,
        )
        return {"positions": found.path_trans[0]}

    def batch(self, backend: str) -> int:
        """As many as `auto` makes most designs in a second with, found when first asked for."""
        if self.point.batch is not None or backend == REFERENCE:
            return self.point.size
        if self.best is None:
            with select.using(kernels(AUTO)):
                self.best = self._search()
        return self.best

    def _model(self, backend: str, dtype: torch.dtype) -> Prepared:
        """Of the reference every call is launched from Python; all others are recorded where the device can."""
        if (backend, dtype) not in self.ready:
            self.ready[backend, dtype] = prepared(
                self.made.model,
                precision=str(dtype).removeprefix("torch."),
                compile=self.compiled and backend != REFERENCE,
                cuda_graph=False if backend == REFERENCE else "auto",
            )
        return self.ready[backend, dtype]

    def _search(self) -> int:
        """The batch is doubled while memory allows and it brings something."""
        best, rate = 1, 0.0
        for size in (2**power for power in range(MOST_DESIGNS.bit_length())):
            try:
                seconds = self._seconds(size)
            except Exception as error:
                if is_out_of_memory(error):
                    break
                raise
            if size / seconds < rate * _GAIN:
                break
            best, rate = size, size / seconds
        if self.point.device == NVIDIA:
            torch.cuda.empty_cache()
        return best

    def _seconds(self, size: int) -> float:
        def run() -> None:
            self(AUTO, self.point.torch_dtype, size, _TRIED)

        run()
        return medians({AUTO: run}, self.point.torch_device, repeats=1)[AUTO]
