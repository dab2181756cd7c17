"""`python -m app report ...`: a folder as a page to look at, and the 3D viewer that such a page may carry."""

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup


class _FolderOrCommand(TyperGroup):
    """`report FOLDER` stands for `report write FOLDER`; a folder that is called as a command is `./install-viewer`."""

    def resolve_command(self, ctx: typer.Context, args: list[str]):
        if args[0] not in self.commands:
            args = ["write", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("--help", "-h"):  # options may come first
            args = ["write", *args]
        return super().parse_args(ctx, args)


report_app = typer.Typer(
    cls=_FolderOrCommand,
    help="Write FOLDER/report.html: a run of infer.py or train.py, or a folder of structures, to look at.",
    no_args_is_help=True,
)


@report_app.command("write")
def write_command(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or any folder of structure files.")],
    viewer: Annotated[Path | None, typer.Option(help="3Dmol-min.js to inline, in place of the installed one.")] = None,
) -> None:
    """Write FOLDER/report.html (the word `write` may be left out)."""
    from app.report import write  # biotite and torch: only for commands that need them

    typer.echo(write(folder, viewer))


@report_app.command("install-viewer")
def install_command(
    source: Annotated[
        Path | None,
        typer.Option("--from", help="The package's tarball, or its 3Dmol-min.js; without it npm fetches it."),
    ] = None,
) -> None:
    """Put 3Dmol.js, with which reports show structures in three dimensions, into the user's cache."""
    from app.report.viewer import LICENSE, VERSION, install

    typer.echo(f"{install(source)}  3Dmol.js {VERSION}, {LICENSE}")
