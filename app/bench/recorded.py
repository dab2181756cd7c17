"""A computation whose launches are recorded in a CUDA graph, as sampling's steps are."""

from collections.abc import Callable
from typing import Any

import torch

from app.sampling.graph import WARM_UP


class Recorded:
    """A call without arguments, recorded after `WARM_UP` calls and replayed from then on.

    What it returns is overwritten by the next call. Raises what torch raises where it cannot be recorded.
    """

    def __init__(self, call: Callable[[], Any]):
        self.call = call
        self._calls, self._graph, self._made = 0, None, None

    def __call__(self) -> Any:
        self._calls += 1
        if self._calls <= WARM_UP:
            return self.call()
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._made = self.call()
            self._graph = graph
        self._graph.replay()
        return self._made
