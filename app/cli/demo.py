"""`python -m app demo`."""

from pathlib import Path
from typing import Annotated

import typer

TRAINING_STEPS = 800


def demo(
    out: Annotated[Path, typer.Option(help="folder for everything the demo writes")] = Path("runs/demo"),
    steps: Annotated[int, typer.Option(min=2, help="optimizer steps of training")] = TRAINING_STEPS,
) -> None:
    """Train on the embedded synthetic set, design proteins, and compare the trained model with an untrained one."""
    from app.cli.demo_run import run_demo  # takes seconds: no other command has to wait for it

    run_demo(out, steps)
