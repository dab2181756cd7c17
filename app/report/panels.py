"""Which columns of metrics.csv are drawn together, in curves.png and in a run's report."""

from collections.abc import Sequence

LOG_SCALE = ("gradient_norm",)
FROM_ZERO = ("designs_clashes", "residues_per_second", "waiting_seconds", "memory_mb", "mfu")


def panels(columns: Sequence[str]) -> dict[str, list[str]]:
    """Titles and columns: what is trained on and its parts, what was validated beside it, each part by time, what
    designs look like, the rest."""
    by_time: dict[str, list[str]] = {}
    for name in columns:
        if "_loss_t" in name:
            by_time.setdefault(f"{name.rpartition('_t')[0]} by time", []).append(name)
    losses = [name for name in columns if name.endswith("_loss") and not name.startswith("valid")]
    validation = [name for name in columns if name.endswith("_loss") and name.startswith("valid")]
    designs = {
        "designs": [name for name in columns if name.startswith("designs_") and name not in FROM_ZERO],
        "folding": [name for name in columns if "_folding_" in name],
    }
    named = {name: [name] for name in ("lr", "gradient_norm", *FROM_ZERO) if name in columns}
    return {"loss": losses, "validation": ["train_loss", *validation] if validation else []} | by_time | designs | named


def label(title: str, column: str) -> str:
    """A column's name in the legend of its panel."""
    return column.rpartition("_")[2] if "by time" in title else column
