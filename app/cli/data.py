"""`python -m app data ...`: look at training data, cluster it, download entries."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from app.errors import UserError

data_app = typer.Typer(
    help="Look at training data, cluster it, download entries of the Protein Data Bank.", no_args_is_help=True
)

_ROWS = 40
_NAMES = 6


class Chains(StrEnum):
    separate = "separate"
    together = "together"


@data_app.command("check")
def check_command(
    path: Annotated[Path, typer.Argument(help="A folder of structure files, one file, or a Multiflow data set.")],
    chains: Annotated[Chains | None, typer.Option(help="Every chain is an example, or every file is one.")] = None,
    min_length: Annotated[int | None, typer.Option(help="Fewest residues of an example.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most residues of an example.")] = None,
    max_unknown_fraction: Annotated[float | None, typer.Option(help="Largest share of unknown residues.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where the preprocessed form is kept.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that preprocess.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="List every name, however many.")] = False,
) -> None:
    """List what training would use of PATH and what it would drop, with reasons and counts.

    Options left out have the defaults of recipes/data/structures.yaml. Exits with an error if nothing is usable.
    """
    from app.data.check import check  # torch: only for commands that need it

    options = {
        "chains": chains and chains.value,
        "min_length": min_length,
        "max_length": max_length,
        "max_unknown_fraction": max_unknown_fraction,
        "cache_dir": cache_dir and str(cache_dir),
        "workers": workers,
    }
    report = check(path, {name: value for name, value in options.items() if value is not None})
    console = Console()
    _show(console, path, report, None if everything else _ROWS, None if everything else _NAMES)
    if not report.used:
        raise UserError(f"{path}: nothing usable; see what was dropped and why above, or relax the limits")


@data_app.command("cluster")
def cluster_command(
    path: Annotated[Path, typer.Argument(help="A folder of structure files, one file, or a Multiflow data set.")],
    to: Annotated[Path, typer.Option(help="File to write: a line a cluster, as Multiflow has them.")],
    min_identity: Annotated[float | None, typer.Option(help="Identical residues, of those aligned.")] = None,
    min_coverage: Annotated[float | None, typer.Option(help="Aligned residues, of the shorter chain's.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where what is read and found is kept.")] = None,
) -> None:
    """Cluster all chains of PATH by sequence, for `data.clusters=FILE` or as the pdb.clusters of a Multiflow data set.

    Options left out have the defaults of recipes/data/structures.yaml.
    """
    from app.config.validate import parse  # torch: only for commands that need it
    from app.data.cluster_file import write_clusters
    from app.data.cluster_folder import cluster_folder
    from app.data.likeness import Likeness

    options = {"min_identity": min_identity, "min_coverage": min_coverage}
    likeness = parse(Likeness, {name: value for name, value in options.items() if value is not None}, "data.likeness")
    names, clusters, unreadable = cluster_folder(path, likeness, cache_dir)
    write_clusters(to, names, clusters)
    sizes = np.bincount(clusters)
    typer.echo(f"{to}: {len(names)} examples in {len(sizes)} clusters, the largest of {sizes.max()}")
    if unreadable:
        typer.echo(
            f"{len(unreadable)} cannot be read; which and why: python -m app data check {shlex.quote(str(path))}"
        )


@data_app.command("fetch")
def fetch_command(
    entries: Annotated[list[str], typer.Argument(help="PDB ids such as 1ubq 2kl8.")],
    to: Annotated[Path, typer.Option(help="Folder to write to; made if it is not there.")],
) -> None:
    """Download entries of the Protein Data Bank as mmCIF files. Files that are there are kept."""
    from app.data.fetch import fetch

    downloaded, kept = fetch(entries, to)
    for path in downloaded:
        typer.echo(f"{path}  downloaded")
    for path in kept:
        typer.echo(f"{path}  kept, it was there")


def _show(console: Console, path: Path, report, rows: int | None, names: int | None) -> None:
    from app.data.structures import summary

    table = Table("example", "residues", title=f"used: {len(report.used)}", title_justify="left")
    table.columns[1].justify = "right"
    for name, length in report.used[:rows]:
        table.add_row(name, str(length))
    if len(report.used) > len(report.used[:rows]):
        table.add_row(f"... and {len(report.used) - rows} more (--all lists them)", "")
    console.print(table)

    if report.dropped:
        table = Table("reason", "count", "which", title=f"dropped: {len(report.dropped)}", title_justify="left")
        table.columns[1].justify = "right"
        for reason, count, which in summary(report.dropped):
            more = "" if count == len(which[:names]) else ", ..."
            table.add_row(reason, str(count), ", ".join(which[:names]) + more)
        console.print(table)

    if report.notes:
        table = Table("file", "in reading", title=f"notes: {len(report.notes)}", title_justify="left")
        for name, note in report.notes[:rows]:
            table.add_row(name, note)
        if len(report.notes) > len(report.notes[:rows]):
            table.add_row("...", f"and {len(report.notes) - rows} more (--all lists them)")
        console.print(table)

    lengths = np.array([length for _, length in report.used])
    if len(lengths):
        console.print(
            f"{len(lengths)} examples of {lengths.min()} to {lengths.max()} residues "
            f"(median {np.median(lengths):.0f}), {lengths.sum()} residues in all; {len(report.dropped)} dropped",
            highlight=False,
        )
        typed = shlex.quote(f"data.path={path}")
        console.print(f"train on them with: data={report.kind} {typed}", highlight=False, soft_wrap=True)
    if report.other_files:
        console.print(f"{report.other_files} other files in the folder are no structure files", highlight=False)
