"""A folder of designs, evaluated: each on its own, against its reference, and as a set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from app.errors import UserError
from app.evaluation import columns, table
from app.evaluation.cache import Cache
from app.evaluation.columns import SKIPPED, Value, printable, skipped
from app.evaluation.comparing import NOTHING, Tell, compared
from app.evaluation.found import ALTERED, EVALUATION, Found, find_designs
from app.evaluation.measured import Measured, begin, perform
from app.evaluation.pool import Pool
from app.evaluation.provenance import provenance
from app.evaluation.references import References
from app.evaluation.self_consistency import COLUMNS, WORDS, refolded
from app.evaluation.settings import EvaluationSettings
from app.evaluation.summary import numbers, reasons, statistics
from app.types import Protein

FORMAT = 1
"""Number of the layout of summary.json."""

_MANY = 64  # designs worth starting processes for


@dataclass(frozen=True)
class Evaluation:
    """rows: a design each. problems: a line for each design that could not be evaluated."""

    rows: list[dict[str, Value]]
    summary: dict[str, Any]
    problems: list[str]


def evaluate(
    folder: Path,
    settings: EvaluationSettings,
    refold: Any = None,
    tell: Tell = lambda what, done, of: None,
    say: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Measure all designs of a folder and write `folder/evaluation`. say: takes a line for whatever is left out.

    Raises UserError: no such folder, nothing in it, nothing of it that can be evaluated; nothing is then written.
    """
    designs, manifest = find_designs(folder, say)
    for option in ("reference", "novelty"):
        path = getattr(settings, option)
        if path is not None and not path.is_dir():
            raise UserError(f"--{option} {path}: no such folder; give a folder of structure files")
    references = References(settings.reference, say)
    out = folder / EVALUATION
    with Cache(out) as cache, Pool(settings.workers) as pool:
        measured = _measured(designs, references, pool, cache, tell)
        good = {one.found.id: one for one in measured if not one.error}
        problems = [f"{one.found.relative or one.found.id}: {one.error}" for one in measured if one.error]
        for line in problems:
            say(line)
        for one in measured:
            if one.is_altered:
                say(f"{one.found.relative}: {ALTERED}")
            if one.not_compared:
                say(f"{one.found.id}: not compared: {one.not_compared}")
        if not good:
            raise UserError(f"{folder}: none of its {len(designs)} designs can be evaluated: {problems[0]}")
        by_id, of_set = compared(good, settings, pool, cache, tell, say)
        if cache.problem:
            say(cache.problem)
    own, refolded_by = refolded(_Proteins(good), refold, partial(tell, "folds"))
    no_structure = NOTHING | skipped(COLUMNS, "no structure")
    rows = [
        _printable(_row(one, bool(manifest)) | (no_structure if one.error else by_id[one.found.id] | own[one.found.id]))
        for one in measured
    ]
    of_set["designable"] = _designable(rows)
    evaluated, names = [row for row in rows if not row["error"]], [*rows[0]][len(columns.ABOUT) :]
    summary = {
        "format": FORMAT,
        "designs": len(rows),
        "evaluated": len(good),
        "metrics": statistics(evaluated, [*("length", "certainty"), *names], settings.seed, settings.resamples),
        "set": of_set,
        "skipped": reasons(evaluated, names),
        "problems": problems,
        "provenance": provenance(settings, manifest) | {"self_consistency": refolded_by},
    }
    table.write(out, rows, columns.TEXT | WORDS, summary)
    return Evaluation(rows, summary, problems)


def _measured(designs: Sequence[Found], references: References, pool: Pool, cache: Cache, tell: Tell):
    """Every design in its order."""
    begun = [begin(one, references, cache) for one in designs]
    left = [(known, task) for known, task in begun if task is not None]
    results = pool.map(perform, [task for _, task in left], enough=len(left) >= _MANY)
    for done, ((known, task), (values, against, error)) in enumerate(zip(left, results, strict=True), start=1):
        known.error = error
        if task.measures and not error:
            known.values = values
            cache.put(known.keys["design"], values)
        if task.reference and not error:
            known.against = against
            if not against["reference"].startswith(SKIPPED):
                cache.put(known.keys["against"], against)
        tell("designs", done, len(left))
    return [known for known, _ in begun]


def _row(one: Measured, has_manifest: bool) -> dict[str, Value]:
    record, values = one.found.record, one.values
    flags = [str(flag) for flag in record.get("flags") or []] if isinstance(record.get("flags"), list) else []
    flags += [ALTERED] if one.is_altered else []
    certainty = values["b_factor"] if values and has_manifest else SKIPPED + "no manifest says what B-factors are"
    about = {
        "id": one.found.id,
        "file": one.found.relative,
        "task": str(record.get("task") or ""),
        "length": values.get("length", 0),
        "chains": values.get("chains", 0),
        "sequence": values.get("sequence", ""),
        "certainty": certainty if values else SKIPPED + "no structure",
        "flags": "; ".join(flags),
        "notes": "; ".join(values.get("notes", [])),
        "error": one.error,
    }
    nothing = skipped((*columns.DESIGN, *columns.AGAINST), "no structure")
    return about | (nothing if one.error else values["columns"] | one.against)


def _printable(row: dict[str, Value]) -> dict[str, Value]:
    return {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}


class _Proteins(Mapping[str, Protein]):
    """The designs, each read when it is asked for."""

    def __init__(self, good: Mapping[str, Measured]):
        self._good = good

    def __getitem__(self, name: str) -> Protein:
        return self._good[name].protein

    def __iter__(self) -> Iterator[str]:
        return iter(self._good)

    def __len__(self) -> int:
        return len(self._good)


def _designable(rows: Sequence[Mapping[str, Value]]) -> dict[str, Any]:
    """Of the designs that refold: how many folds they have, which is what diversity usually means."""
    if not len(numbers(rows, "designable")):
        return {"skipped": "self-consistency was not measured"}
    own = [row for row in rows if row["designable"] == 1]
    clusters = numbers(own, "cluster")
    return {"designs": len(own), "compared": len(clusters), "clusters": len(set(clusters.tolist()))}
