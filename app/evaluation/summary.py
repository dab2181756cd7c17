"""What a set of designs looks like as a whole: means with bootstrap intervals (Efron 1979)."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from app.evaluation.columns import NAMES, SKIPPED, TEXT, Value

INTERVAL = (2.5, 97.5)
"""Percentiles of the means of resampled sets, between which 95 % of them lie."""


def numbers(rows: Sequence[Mapping[str, Value]], column: str) -> np.ndarray:
    """Of the designs where it was measured. True counts 1."""
    values = (row[column] for row in rows)
    return np.array([float(value) for value in values if not isinstance(value, str)])


def statistics(
    rows: Sequence[Mapping[str, Value]], columns: Iterable[str], seed: int, resamples: int
) -> dict[str, dict[str, Any]]:
    """Of each column of numbers: mean, median, the interval of the mean from low to high, and n, how many designs have
    one. The interval is None for fewer than two."""
    found = {}
    for column in columns:
        if column in TEXT or column in NAMES or not len(values := numbers(rows, column)):
            continue
        low, high = _interval(values, np.random.default_rng([seed, zlib.crc32(column.encode())]), resamples)
        found[column] = {
            "mean": _rounded(values.mean()),
            "median": _rounded(np.median(values)),
            "low": low,
            "high": high,
            "n": len(values),
        }
    return found


def reasons(rows: Sequence[Mapping[str, Value]], columns: Iterable[str]) -> dict[str, str]:
    """Why a column was measured of no design, where that is so: the reason of the most."""
    found = {}
    for column in columns:
        why = [value for row in rows if isinstance(value := row[column], str) and value.startswith(SKIPPED)]
        if rows and len(why) == len(rows):
            found[column] = max(dict.fromkeys(why), key=why.count).removeprefix(SKIPPED)
    return found


def _interval(values: np.ndarray, random: np.random.Generator, resamples: int) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, INTERVAL)
    return _rounded(low), _rounded(high)


def _rounded(value: float) -> float:
    return round(float(value), 6)
