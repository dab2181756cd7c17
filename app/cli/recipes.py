"""`python -m app recipes`: what recipes there are, and in what two of them differ."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

recipes_app = typer.Typer(help="List the recipes; compare two of them.", invoke_without_command=True)

_Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@recipes_app.callback()
def list_command(context: typer.Context, as_json: _Json = False) -> None:
    """List the recipes with their parameters, blocks, and whether Multiflow's weights fit."""
    if context.invoked_subcommand is not None:
        return
    from app.training.summary import summaries  # torch: only for commands that need it

    found = summaries()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    table = Table(Column("recipe", no_wrap=True), "parameters", "trunk", "esm", "head", "Multiflow's weights")
    table.columns[1].justify = "right"
    for one in found:
        if "error" in one:
            table.add_row(one["name"], "", "not valid")
        else:
            words = (one[part] for part in ("trunk", "esm", "head"))
            table.add_row(one["name"], f"{one['parameters']:,}", *words, _fit(one))
    console.print(table)
    for one in found:
        about = one.get("error") or f"{one['purpose']} {one['cost']}"
        console.print(f"{one['name']}: {about}", highlight=False, markup=False, soft_wrap=True)
    console.print("choose one by: python train.py recipe=NAME", highlight=False)


@recipes_app.command("diff")
def diff_command(
    a: Annotated[str, typer.Argument(help="a recipe's name")],
    b: Annotated[str, typer.Argument(help="another's")],
    as_json: _Json = False,
) -> None:
    """Show in what recipe B differs from recipe A: every key, both values."""
    from app.config.compose import compose
    from app.config.diff import ABSENT, differences

    found = differences(*(compose("train", [f"recipe={name}"]) for name in (a, b)))
    plain = [(key, *(None if value is ABSENT else value for value in values)) for key, *values in found]
    if as_json:
        print(json.dumps([{"key": key, a: old, b: new} for key, old, new in plain], indent=2))
        return
    table = Table("key", a, b)
    for key, old, new in plain:
        table.add_row(key, _shown(old), _shown(new))
    Console().print(table)


def _fit(summary: dict[str, Any]) -> str:
    share = summary["multiflow_parameters_taken"] / summary["multiflow_parameters"]
    return f"part, {share:.0%}" if summary["multiflow_weights"] == "part" else summary["multiflow_weights"]


def _shown(value: Any) -> str:
    """A value in a table's cell; of a stage, its block and depth."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        from app.training.summary import stages_in_words

        return stages_in_words(value)
    return "" if value is None else str(value)
