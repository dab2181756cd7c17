"""metrics.csv: a line at a time, in the file as soon as it is known."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from app.files.whole import told_of, write_whole


class CsvLog(Logger):
    """A file with the column `step` and one for each metric. It is continued where it exists, never emptied.

    columns: known from the start. Others are added when they turn up, by writing the file anew, as a whole. What a line
    lacks is an empty cell. Only the first rank writes. Raises UserError where the file cannot be written.
    """

    name, version = "csv", ""  # Lightning asks

    def __init__(self, path: Path, columns: Sequence[str] = ()):
        super().__init__()
        self.path = path
        self._columns = ["step", *columns]
        self._begun = False  # whether the file is known to have these columns

    def log_hyperparams(self, params: Any, *_args, **_kwargs) -> None:
        """They are in recipe.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        if not self._begun or not row.keys() <= set(self._columns):
            self._rewrite(self._read(), row)
        with told_of(self.path), self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(_text(row.get(name)) for name in self._columns)

    @rank_zero_only
    def save(self) -> None:
        """The lines so far are on the disk on return, a power cut or not."""
        if self._begun:
            with told_of(self.path), self.path.open("a") as file:
                os.fsync(file.fileno())

    @rank_zero_only
    def drop_after(self, step: int, having: str = "step") -> None:
        """Remove the lines of later steps that have a value in a column, and one that was cut off. Where there is no
        file, nothing happens."""
        if self.path.exists():
            self._rewrite([row for row in self._read() if int(row["step"]) <= step or not row.get(having)])

    def _read(self) -> list[dict[str, str]]:
        """The whole lines of the file."""
        if not self.path.exists():
            return []
        with told_of(self.path):
            text = self.path.read_text(errors="replace")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        return [row for row in reader if row.get("step", "").isdigit() and None not in (*row, *row.values())]

    def _rewrite(self, rows: list[dict[str, str]], more: Mapping[str, Any] | None = None) -> None:
        """The file with these lines, and columns for all that they and `more` have."""
        self._columns = list(dict.fromkeys([*(rows[0] if rows else ()), *self._columns, *(more or ())]))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self._columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path, lambda file: file.write(buffer.getvalue().encode()))
        self._begun = True


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
