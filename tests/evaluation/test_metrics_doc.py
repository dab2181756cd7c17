"""docs/metrics.md defines every column, and none that is not there."""

import re
from pathlib import Path

from app.evaluation import columns
from app.evaluation.self_consistency import COLUMNS
from app.evaluation.table import REASONS

DOC = Path(__file__).resolve().parents[2] / "docs/metrics.md"
TABLE = re.compile(r"^\| column \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)


def documented() -> list[str]:
    lines = [line for rows in TABLE.findall(DOC.read_text()) for line in rows.splitlines()]
    return [name for line in lines for name in re.findall(r"`(\w+)`", line.split("|")[1])]


def test_every_column_is_defined_once():
    names = documented()
    assert len(names) == len(set(names))
    every = (*columns.ABOUT, *columns.DESIGN, *columns.AGAINST, *columns.DIVERSITY, *columns.NOVELTY, *COLUMNS, REASONS)
    assert set(names) == set(every)
