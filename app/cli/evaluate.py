"""`python -m app evaluate`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from app.cli.refold_options import with_refold_options
from app.errors import UserError
from app.evaluation.refold import RefoldSettings

if TYPE_CHECKING:
    from app.evaluation.run import Evaluation

SHOWN = (
    *("bond_outliers", "angle_outliers", "ca_ca_valid", "clashes", "ramachandran_outliers", "chain_breaks"),
    *("d_residues", "compactness", "helix", "strand", "composition_divergence", "certainty"),
    *("recovery", "ca_rmsd", "backbone_rmsd", "tm_score", "lddt", "novelty_tm_score"),
    *("codesign_rmsd", "codesign_designable", "sc_rmsd", "designable"),
)
"""Columns of the table on the terminal; summary.json has all."""


@with_refold_options
def evaluate(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or any folder of structure files.")],
    reference: Annotated[Path | None, typer.Option(help="Structures that designs are held against, by name.")] = None,
    novelty: Annotated[Path | None, typer.Option(help="Known structures that designs are searched among.")] = None,
    compare: Annotated[
        float, typer.Option(min=0, help="Million pairs of residues to superpose at most, for diversity and novelty.")
    ] = 50.0,
    foldseek: Annotated[bool, typer.Option(help="Use foldseek for both where it is installed.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of intervals, and of what is compared in a large set.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")] = None,
    viewer: Annotated[Path | None, typer.Option(help="3Dmol-min.js for the report, if not the installed one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    *,
    refold: RefoldSettings,
) -> None:
    """Measure every design of a folder: FOLDER/evaluation/designs.csv, designs.parquet, summary.json.

    docs/metrics.md defines each number, and FOLDER/report.html shows them. A design that cannot be evaluated is told in
    a line and stops no other. Exits with 2 where none can.
    """
    from app.evaluation import evaluate  # torch, biotite, pandas: only for commands that need them
    from app.evaluation.settings import EvaluationSettings
    from app.report.viewer import find

    if viewer is not None:
        find(viewer)  # lest a mistake be told after the work
    settings = EvaluationSettings(
        reference=reference, novelty=novelty, compare=compare, foldseek=foldseek, seed=seed, workers=workers
    )
    notes = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    with _Bars(notes) as bars:
        found = evaluate(folder, settings, refold=refold, tell=bars.tell, say=notes.print)
    looked_at = _write_report(folder, viewer, notes)
    if as_json:
        print(json.dumps(found.summary, indent=1))
    else:
        _show(found, folder)
        if looked_at:
            print(f"to look at: {looked_at}")


def _write_report(folder: Path, viewer: Path | None, notes: Console) -> Path | None:
    """Numbers are kept though their pictures cannot be written."""
    from app import report

    try:
        return report.write(folder, viewer)
    except UserError as error:
        notes.print(f"no report: {error}")
        return None


class _Bars(Progress):
    """A bar for each thing that takes its time; nothing where there is no terminal."""

    def __init__(self, console: Console):
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        super().__init__(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self._begun: dict[str, Any] = {}

    def tell(self, what: str, done: int, of: int) -> None:
        if what not in self._begun:
            self._begun[what] = self.add_task(what, total=of)
        self.update(self._begun[what], completed=done)


def _show(found: "Evaluation", folder: Path) -> None:
    summary, console = found.summary, Console(highlight=False)
    told = f"{summary['evaluated']} of {summary['designs']} designs evaluated"
    table = Table("", "mean", "median", "95 % of the mean", "n", title=told, title_justify="left")
    for name in table.columns[1:]:
        name.justify = "right"
    for name in SHOWN:
        if one := summary["metrics"].get(name):
            interval = "" if one["low"] is None else f"{one['low']:.4g} to {one['high']:.4g}"
            table.add_row(name, f"{one['mean']:.4g}", f"{one['median']:.4g}", interval, str(one["n"]))
    console.print(table)
    for line in (*_of_set(summary["set"]), *_skipped(summary["skipped"])):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"all numbers: {folder / 'evaluation'}", soft_wrap=True, markup=False)


def _of_set(told: dict[str, Any]) -> list[str]:
    lines = []
    diversity, novelty, designable = told["diversity"], told["novelty"], told["designable"]
    if "clusters" in diversity:
        lines.append(f"diversity: {diversity['clusters']} clusters of {_compared(diversity)}")
    if "new_folds" in novelty:
        share, limit = novelty["new_folds"], novelty["threshold"]
        lines.append(f"novelty: {share:.0%} under TM-score {limit} of {_compared(novelty)}")
    if "clusters" in designable:
        lines.append(f"designable: {designable['designs']} designs in {designable['clusters']} clusters")
    return lines


def _skipped(reasons: Mapping[str, str]) -> list[str]:
    """What the table lacks, and why, as for want of a reference of that name."""
    by_reason: dict[str, list[str]] = {}
    for name in filter(reasons.__contains__, SHOWN):
        by_reason.setdefault(reasons[name], []).append(name)
    return [f"skipped: {', '.join(names)}: {why}" for why, names in by_reason.items()]


def _compared(told: dict[str, Any]) -> str:
    more = f" ({told['left_out']} more were not compared: --compare)" if told["left_out"] else ""
    return f"{told['compared']} designs, by {told['tool']['name']}{more}"
