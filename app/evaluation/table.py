"""The files of an evaluation: designs.csv, designs.parquet, summary.json. Each appears whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from app.errors import UserError
from app.evaluation.columns import SKIPPED, Value
from app.structure.atomic import replacing

CSV, PARQUET, SUMMARY = "designs.csv", "designs.parquet", "summary.json"

REASONS = "skipped"
"""Column of the Parquet file alone: by column, as JSON, why there is no value. The column itself then has none, so that
columns of numbers are numbers."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How begins what a spreadsheet runs: white space before a formula is taken off by some."""


def write(folder: Path, rows: Sequence[Mapping[str, Value]], words: frozenset[str], summary: Mapping[str, Any]) -> None:
    """words: the columns that hold text. Raises UserError where the folder cannot be written to."""
    try:
        with replacing(folder / CSV) as aside:
            pd.DataFrame([_for_spreadsheets(row) for row in rows]).to_csv(aside, index=False)
        with replacing(folder / PARQUET) as aside:
            _typed(rows, words).to_parquet(aside, engine="pyarrow", index=False)
        with replacing(folder / SUMMARY) as aside:
            aside.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}): make room, or mend its permissions") from None


def _for_spreadsheets(row: Mapping[str, Value]) -> dict[str, Value]:
    """A name that a spreadsheet would run as a formula, such as "=cmd", gets an apostrophe before it."""
    return {
        name: f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA else value for name, value in row.items()
    }


def _typed(rows: Sequence[Mapping[str, Value]], words: frozenset[str]) -> pd.DataFrame:
    table = {}
    for column in rows[0]:
        values = [None if _is_reason(row[column]) else row[column] for row in rows]
        table[column] = pd.Series(values, dtype="string" if column in words else "Float64")
    why = [{name: value.removeprefix(SKIPPED) for name, value in row.items() if _is_reason(value)} for row in rows]
    table[REASONS] = pd.Series([json.dumps(one) for one in why], dtype="string")
    return pd.DataFrame(table)


def _is_reason(value: Value) -> bool:
    return isinstance(value, str) and value.startswith(SKIPPED)
