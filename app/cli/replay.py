"""`python -m app replay`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from app.errors import UserError

if TYPE_CHECKING:
    from app.training.replay import Replayed

DEVICE = "device"

_WIDEST = 1000
"""Columns where no terminal says how many: lines of a file are not to be broken."""


def replay(
    file: Annotated[Path, typer.Argument(help="replay/step-000100.ckpt of a run's folder.")],
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE ...", help="device=auto|cpu|mps|cuda")] = None,
) -> None:
    """Run an optimizer step again that was skipped because its loss or gradient was not finite.

    Prints every example's losses, and the first module whose output is not finite; where all are, the first whose
    gradient is not. Noise and weights are those of the run; on a device of the same type, which is the default where it
    is there, dropout and kernels as well.
    """
    wanted = _device(keys or [])
    from app.devices import choose  # torch: only for commands that need it
    from app.training.replay import replay
    from app.training.replay_file import read

    if wanted is not None:
        choose(wanted)
    kept = read(file)
    try:
        device = choose(kept.device if wanted is None else wanted)
    except UserError:  # of another machine
        device = choose()
    found = replay(kept, device)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDEST
    console.print(_table(found))
    console.print(f"step {kept.step}, on {device.type}: {found.verdict()}", soft_wrap=True)


def _device(keys: list[str]) -> str | None:
    """Raises UserError for other keys."""
    given = [text.partition("=") for text in keys]
    for key, equals, _ in given:
        if key != DEVICE or not equals:
            raise UserError(f"{key}: unknown here; give the file, and device=auto, cpu, mps or cuda")
    return given[-1][2] if given else None


def _table(found: "Replayed") -> Table:
    """A line an example. Which rank and batch it was of is told where there are several."""
    names = list(found.rows[0].losses)
    ranks, batches = ({getattr(row.place, each) for row in found.rows} for each in ("rank", "batch"))
    several = {"rank": len(ranks) > 1, "batch": len(batches) > 1}
    where = [each for each, told in several.items() if told]
    numbers = [*where, "residues", *(name.removesuffix("_loss") for name in names)]
    table = Table("losses of", *(Column(name, justify="right") for name in numbers), box=SIMPLE_HEAD)
    for row in found.rows:
        values = [f"{value:.4g}" for value in row.losses.values()]
        style = None if all(map(math.isfinite, row.losses.values())) else "bold red"
        name = Text(row.name, overflow="fold")  # whole in any width, and what is in it is neither markup nor emoji
        cells = [name, *(str(getattr(row.place, each)) for each in where), str(row.length), *values]
        table.add_row(*cells, style=style)
    return table
