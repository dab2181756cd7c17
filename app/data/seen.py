"""What a run has trained on and what it held out, for the same run to keep to it when it goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from app.data.strings import Strings


@dataclass(frozen=True)
class Seen:
    """Names of examples."""

    trained: Collection[str]
    held_out: Collection[str]

    def and_then(self, trained: Sequence[str], held_out: Sequence[str]) -> Seen:
        """After training on these, too; what is held out now is all that is."""
        return Seen(set(self.trained) | set(trained), set(held_out))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """As a checkpoint keeps it."""
        sides = {"trained": self.trained, "held_out": self.held_out}
        packed = {side: Strings.pack(sorted(names)) for side, names in sides.items()}
        return {side: {"text": names.text, "ends": names.ends} for side, names in packed.items()}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Seen | None:
        """None for a checkpoint of before it was kept."""
        if not {"trained", "held_out"} <= state.keys():
            return None
        return cls(*(set(Strings(**state[side])) for side in ("trained", "held_out")))
