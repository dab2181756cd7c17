"""`python -m app doctor`."""

import json
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from app import environment
from app.config.entry import INTERRUPTED

if TYPE_CHECKING:
    from app.bench.doctor import Row

_COLOURS = {"ok": "green", "wrong": "bold red", "failed": "red"}


def doctor(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    length: Annotated[list[int] | None, typer.Option(min=1, help="Residues to time at; 64 128 256 512.")] = None,
    named: Annotated[str, typer.Option("--environment", help="default or tf32, as for runs.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="A list of rows.")] = False,
) -> None:
    """Try every backend of every operation here: does it run, is it right, how fast is it, would `auto` choose it.

    Each is run forward and backward, in float32 and in half precision, and compared with the reference in float64.
    What is done when it is interrupted is shown. Exits with 1 if any is wrong.
    """
    settings = environment.of_command_line([f"environment={named}"])
    environment.prepare(settings)
    from app.bench.doctor import LENGTHS, examine  # torch: only for commands that need it
    from app.bench.machine import describe
    from app.bench.table import WIDTH
    from app.bench.trials import WRONG
    from app.devices import choose

    chosen = choose(device, "--device")
    environment.apply(settings)
    notes = Console(stderr=as_json, highlight=False, markup=False, soft_wrap=True)
    for name, words in describe(chosen, named).items():
        notes.print(f"{name}: {words}")
    lengths = tuple(dict.fromkeys(length or LENGTHS))
    rows, interrupted = [], False
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a time limit ends it as Ctrl-C does
    with notes.status("", spinner="dots") as status:
        try:
            for row in examine(chosen.type, lengths):
                rows.append(row)
                status.update(f"{row.op} {row.backend}: {row.status}")
        except KeyboardInterrupt:
            interrupted = True
    if as_json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=2)
        print()
    else:
        Console(width=WIDTH).print(_table(rows, lengths))
        for row in rows:
            if row.reason:
                print(f"{row.op} {row.backend}: {row.reason}")
    if interrupted:
        notes.print("interrupted: the other backends were not tried")
        raise typer.Exit(INTERRUPTED)
    if any(row.status == WRONG for row in rows):
        raise typer.Exit(1)


def _table(rows: "list[Row]", lengths: tuple[int, ...]) -> Table:
    """A line for each type that a backend has; one for what was not tried."""
    table = Table(
        *(Column(title, no_wrap=True) for title in ("operation", "backend", "version", "type", "status")),
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
        names = row.op, row.backend, row.version or ""
        for line in _lines(row, lengths):
            table.add_row(*names, *line)
            names = "", "", ""
        previous = row.op
    return table


def _lines(row: "Row", lengths: tuple[int, ...]) -> list[tuple[str, ...]]:
    from app.bench.table import duration
    from app.bench.trials import NOT_HERE

    lines = []
    for dtype, found in row.dtypes.items():
        if found.status != NOT_HERE:
            errors = ["" if error is None else f"{error:.1e}" for error in (found.max_error, found.max_grad_error)]
            times = [found.seconds.get(length) for length in lengths]
            told = ["" if seconds is None else duration(seconds) for seconds in times]
            lines.append((dtype, _coloured(found.status), *errors, *told, _taken(row, dtype, lengths)))
    return lines or [("", _coloured(row.status))]


def _coloured(status: str) -> str:
    colour = _COLOURS.get(status)
    return f"[{colour}]{status}[/]" if colour else status


def _taken(row: "Row", dtype: str, lengths: tuple[int, ...]) -> str:
    """Where `auto` takes it: "everywhere", or by use."""
    uses = {use: by_dtype[dtype] for use, by_dtype in row.chosen_by_auto.items() if dtype in by_dtype}
    places = {use: "everywhere" if set(at) == set(lengths) else ", ".join(map(str, at)) for use, at in uses.items()}
    if len(places) == 2 and len(set(places.values())) == 1:
        return places["inference"]
    return "; ".join(f"{use} {where}" for use, where in places.items())
