"""curves.png: what metrics.csv says, at a glance."""

import math
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from app.files.whole import write_whole

COLUMNS = 4
LOG_SCALE = ("gradient_norm",)
FROM_ZERO = ("designs_clashes", "residues_per_second", "waiting_seconds", "memory_mb", "mfu")


def draw(metrics: Path, picture: Path) -> None:
    """A panel for each group of columns that has numbers, over optimizer steps; of a run's whole length, however often
    it was resumed. Raises UserError where the picture cannot be written."""
    table = pd.read_csv(metrics).set_index("step")
    panels = {title: [name for name in names if table[name].notna().any()] for title, names in _panels(table).items()}
    panels = {title: names for title, names in panels.items() if names}
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    figure = Figure(figsize=(4 * COLUMNS, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, names) in enumerate(panels.items(), 1):
        _panel(figure.add_subplot(rows, COLUMNS, place), table[names], title)
    write_whole(picture, lambda file: figure.savefig(file, format="png", dpi=100))


def _panels(table: pd.DataFrame) -> dict[str, list[str]]:
    """Titles and columns: what is trained on and its parts, what was validated beside it, each part by time, what
    designs look like, the rest."""
    by_time: dict[str, list[str]] = {}
    for name in table.columns:
        if "_loss_t" in name:
            by_time.setdefault(f"{name.rpartition('_t')[0]} by time", []).append(name)
    losses = [name for name in table.columns if name.endswith("_loss") and not name.startswith("valid")]
    validation = [name for name in table.columns if name.endswith("_loss") and name.startswith("valid")]
    designs = {
        "designs": [name for name in table.columns if name.startswith("designs_") and name not in FROM_ZERO],
        "folding": [name for name in table.columns if "_folding_" in name],
    }
    named = {name: [name] for name in ("lr", "gradient_norm", *FROM_ZERO) if name in table.columns}
    return {"loss": losses, "validation": ["train_loss", *validation] if validation else []} | by_time | designs | named


def _panel(axes: Axes, lines: pd.DataFrame, title: str) -> None:
    for name in lines.columns:
        known = lines[name].dropna()
        label = name.rpartition("_")[2] if "by time" in title else name
        axes.plot(known.index, known, label=label, linewidth=1, marker="." if len(known) < 3 else None)
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
