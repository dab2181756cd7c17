"""curves.png: what metrics.csv says, at a glance."""

import math
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from app.files.whole import write_whole
from app.report.panels import FROM_ZERO, LOG_SCALE, label, panels

COLUMNS = 4


def draw(metrics: Path, picture: Path) -> None:
    """A panel for each group of columns that has numbers, over optimizer steps; of a run's whole length, however often
    it was resumed. Raises UserError where the picture cannot be written."""
    table = pd.read_csv(metrics).set_index("step")
    drawn = {
        title: known
        for title, names in panels(list(table.columns)).items()
        if (known := [name for name in names if table[name].notna().any()])
    }
    rows = max(1, math.ceil(len(drawn) / COLUMNS))
    figure = Figure(figsize=(4 * COLUMNS, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, names) in enumerate(drawn.items(), 1):
        _panel(figure.add_subplot(rows, COLUMNS, place), table[names], title)
    write_whole(picture, lambda file: figure.savefig(file, format="png", dpi=100))


def _panel(axes: Axes, lines: pd.DataFrame, title: str) -> None:
    for name in lines.columns:
        known = lines[name].dropna()
        axes.plot(known.index, known, label=label(title, name), linewidth=1, marker="." if len(known) < 3 else None)
    if title in LOG_SCALE and (lines[title].dropna() > 0).all():
        axes.set_yscale("log")
    if title in FROM_ZERO:
        axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if len(lines.columns) > 1:
        axes.legend(fontsize=7)
