"""Many strings in little memory, which worker processes share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


class Strings(Sequence[str]):
    """A sequence of strings, packed end to end into two tensors.

    A list of 200,000 strings is as many Python objects: a forked worker copies their pages as soon as it counts
    references, and a spawned one gets copies to begin with. Tensors are shared by both.

    text: [bytes] uint8, UTF-8. ends: [strings] int64, where each ends.
    """

    def __init__(self, text: Tensor, ends: Tensor):
        self.text, self.ends = text, ends

    @classmethod
    def pack(cls, strings: Iterable[str]) -> Strings:
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        ends = np.cumsum([len(one) for one in encoded], dtype=np.int64)
        text = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
        return cls(torch.from_numpy(text), torch.from_numpy(ends))

    def select(self, indices: np.ndarray) -> Strings:
        """Those at `indices` [n] int64, in that order."""
        ends = self.ends.numpy()
        lengths = np.diff(ends, prepend=0)[indices]
        new_ends = np.cumsum(lengths)
        places = np.arange(lengths.sum()) + np.repeat(ends[indices] - new_ends, lengths)
        return Strings(self.text[torch.from_numpy(places)], torch.from_numpy(new_ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        start = int(self.ends[index - 1]) if index else 0
        return bytes(self.text[start : int(self.ends[index])].numpy()).decode("utf-8", "surrogateescape")

    def __iter__(self):
        text, start = self.text.numpy().tobytes(), 0
        for end in self.ends.tolist():
            yield text[start:end].decode("utf-8", "surrogateescape")
            start = end

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    __hash__ = None

    def __repr__(self) -> str:
        return repr(list(self))
