"""`python -m app doctor`."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from app import environment

if TYPE_CHECKING:
    from app.bench.doctor import Row

_COLOURS = {"ok": "green", "wrong": "bold red", "failed": "red"}


def doctor(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    length: Annotated[list[int] | None, typer.Option(min=1, help="Residues to time at; 64 128 256 512.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of rows.")] = False,
) -> None:
    """Try every backend of every operation here: does it run, is it right, how fast is it, would `auto` choose it.

    Each is run forward and backward and compared with the reference in float64. Exits with 1 if any is wrong.
    """
    from app.bench.doctor import LENGTHS, WRONG, examine  # torch: only for commands that need it
    from app.bench.machine import describe
    from app.bench.table import WIDTH
    from app.devices import choose

    chosen = choose(device, "--device")
    environment.apply(environment.EnvironmentSettings())
    notes = Console(stderr=as_json, highlight=False, markup=False, soft_wrap=True)
    for name, words in describe(chosen).items():
        notes.print(f"{name}: {words}")
    lengths = tuple(length or LENGTHS)
    rows = list(examine(chosen.type, lengths))
    if as_json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=2)
        print()
    else:
        Console(width=WIDTH).print(_table(rows, lengths))
        for row in rows:
            if row.reason:
                print(f"{row.op} {row.backend}: {row.reason}")
    if any(row.status == WRONG for row in rows):
        raise typer.Exit(1)


def _table(rows: "list[Row]", lengths: tuple[int, ...]) -> Table:
    from app.bench.table import duration

    table = Table(
        *(Column(title, no_wrap=True) for title in ("operation", "backend", "version", "status")),
        *(Column(title, justify="right", no_wrap=True) for title in ("error", "gradients")),
        *(Column(f"N={length}", justify="right", no_wrap=True) for length in lengths),
        Column("auto takes it at", overflow="fold"),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    previous = None
    for row in rows:
        if previous not in (None, row.op):
            table.add_section()
        colour = _COLOURS.get(row.status)
        times = [row.seconds.get(length) for length in lengths]
        table.add_row(
            *(row.op, row.backend, row.version or ""),
            f"[{colour}]{row.status}[/]" if colour else row.status,
            *("" if error is None else f"{error:.1e}" for error in (row.max_error, row.max_grad_error)),
            *("" if seconds is None else duration(seconds) for seconds in times),
            "; ".join(f"{dtype} {_places(where, lengths)}" for dtype, where in row.chosen_by_auto.items()),
        )
        previous = row.op
    return table


def _places(where: list[int], lengths: tuple[int, ...]) -> str:
    return "everywhere" if set(where) == set(lengths) else ", ".join(map(str, where))
