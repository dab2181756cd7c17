"""A step captured in a CUDA graph: its kernels are launched together, not one by one from Python."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from app.config.keys import one_line
from app.devices import is_out_of_memory
from app.sampling.step import Clean, Point

log = logging.getLogger(__name__)

WARM_UP = 2
"""Steps before the capture, and passes of training: a compiled model is compiled in the second (see
`app.model.compiled`)."""


class Replayed:
    """A step (`app.sampling.step.Step`) that runs as it is at first, is then captured once, and replayed from there on.

    At first, kernels are chosen, compiled, tuned and loaded, none of which can be captured. A graph reads and writes
    the same memory at every replay: what it returns is overwritten by the next one. It lives as long as this object
    does, one run of one batch; that keeps memory of other lengths from piling up, and costs about as much as a step.
    """

    def __init__(self, step: Callable[..., tuple[Clean, Point]], on_capture: Callable[[bool], None]):
        """on_capture: told whether the capture succeeded; where it did not, all steps run as they are."""
        self.step, self.on_capture = step, on_capture
        self._steps, self._failed = 0, False
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, point: Point, row: Tensor, uniform: Tensor | None) -> tuple[Clean, Point]:
        if self._steps >= WARM_UP and not self._failed and self._graph is None:
            self._capture(point, row, uniform)
        self._steps += 1
        if self._graph is None:
            return self.step(point, row, uniform)
        for given, seen in zip((*point, row, uniform), self._seen, strict=True):
            if given is not seen:  # the point of the last replay lies there already
                seen.copy_(given)
        self._graph.replay()
        return self._clean, Point(*self._seen[: len(point)])

    def _capture(self, *given) -> None:
        """Record a step, with its next point written over the one that it starts from. Runs nothing."""
        point, row, uniform = given
        self._seen = [None if value is None else value.clone() for value in (*point, row, uniform)]
        *point, row, uniform = self._seen
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                clean, after = self.step(Point(*point), row, uniform)
                self._clean = Clean(*(value.clone() for value in clean))  # some may lie in what is written over next
                for buffer, value in zip(point, after, strict=True):
                    buffer.copy_(value)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._failed = True
            self.on_capture(False)
            log.warning(
                f"cuda_graph: a step cannot be captured ({type(error).__name__}: {one_line(error)[:300]}): going on"
                " without, results are the same"
            )
        else:
            self._graph = graph
            self.on_capture(True)
