"""`python -m app bench`."""

import json
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from app import environment
from app.config.entry import INTERRUPTED
from app.errors import UserError

if TYPE_CHECKING:
    import torch


def bench(
    only: Annotated[list[str] | None, typer.Option(help="Cases to measure; NAME:RECIPE for a model.")] = None,
    length: Annotated[list[int] | None, typer.Option(min=1, help="Residues.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[list[str] | None, typer.Option(help="float32, bfloat16, float16.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples at once.")] = None,
    backends: Annotated[str | None, typer.Option(help="Besides reference and auto, as in torch,triton.")] = None,
    recipe: Annotated[str | None, typer.Option(help="That of the models, in place of multiflow_legacy.")] = None,
    named: Annotated[str, typer.Option("--environment", help="default or tf32, as for runs.")] = "default",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds in which all backends take their turn.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="A list of rows.")] = False,
) -> None:
    """Measure speed, memory and errors of every backend beside the reference: everything, or the cases of --only.

    Cases: model-forward, model-train and sampling, each also as NAME-compiled, model-train-checkpointed,
    model-train-recorded, model-train-compiled-recorded, esm, longest, and every operation, forward (NAME) and with its
    backward pass (NAME-train). Progress goes to standard error; what is done when it is interrupted is shown. Exits
    with 1 where nothing could be measured.
    """
    settings = environment.of_command_line([f"environment={named}"])
    environment.prepare(settings)
    from app.bench.bandwidth import beside_reading
    from app.bench.cases import chosen_cases  # torch: only for commands that need it
    from app.bench.machine import describe
    from app.bench.run import Request, measured, refuse
    from app.bench.table import WIDTH, best, choices, table
    from app.devices import choose

    chosen = choose(device, "--device")
    environment.apply(settings)
    request = Request(
        cases=chosen_cases(only, recipe, chosen.type),
        device=chosen.type,
        lengths=_once(length or ()) or None,
        dtypes=_once(_dtype(name, chosen) for name in dtype or ()) or None,
        batch=batch,
        backends=_backends(backends) if backends else None,
        repeats=repeats,
    )
    refuse(request)
    notes = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    for name, words in describe(chosen, named).items():
        notes.print(f"{name}: {words}")
    bandwidth = _bandwidth(chosen.type, notes.print)
    rows, chose, status, failure = [], [], 0, None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a time limit ends it as Ctrl-C does
    try:
        for row, words in measured(request, notes.print):
            rows.append(row)
            chose.append(words)
    except KeyboardInterrupt:
        notes.print(f"interrupted: {'this' if rows else 'nothing'} was measured")
        status = INTERRUPTED
    except Exception as error:  # what was measured before is shown all the same
        failure = error
    if as_json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=2)
        print()
    else:
        Console(width=WIDTH).print(table(rows))
        for line in [*choices(rows, chose), *best(rows, chose), *beside_reading(rows, bandwidth)]:
            print(line)
    if failure is not None:
        raise failure
    if not status and all(row.seconds is None for row in rows):
        notes.print("nothing could be measured: the lines above say why")
        status = 1
    if status:
        raise typer.Exit(status)


def _once(values: Iterable) -> list:
    """Without repetitions."""
    return list(dict.fromkeys(values))


def _bandwidth(device: str, say: Callable[[str], None]) -> float | None:
    """Of a GPU, by which what only moves data can be judged."""
    from app.bench.apart import Apart, Failed
    from app.bench.bandwidth import copy_bandwidth
    from app.devices import NVIDIA

    if device != NVIDIA:
        return None
    try:
        with Apart() as apart:
            bandwidth = apart(copy_bandwidth, device)
    except Failed as error:
        say(f"copy: not measured: {error}")
        return None
    say(f"copy: {bandwidth / 1e12:.2f} TB/s read and written")
    return bandwidth


def _dtype(name: str, device: "torch.device") -> str:
    from app.devices import choose_dtype

    known, there = ("float32", "bfloat16", "float16"), []
    for one in known:
        with suppress(UserError):
            choose_dtype(one, device)
            there.append(one)
    if name not in known:
        raise UserError(f"--dtype {name}: there is none of that name: use {' or '.join(there)}")
    if name not in there:
        raise UserError(f"--dtype {name}: the {device.type} device has none: use {' or '.join(there)}")
    return name


def _backends(names: str) -> list[str]:
    from app.bench.case import OF_MODELS

    chosen = [name.strip() for name in names.split(",")]
    if unknown := [name for name in chosen if name not in OF_MODELS]:
        raise UserError(f"--backends {', '.join(unknown)}: there is none of that name: use {', '.join(OF_MODELS)}")
    return chosen
