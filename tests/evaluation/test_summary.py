import numpy as np
import pytest

from app.evaluation.summary import reasons, statistics


def rows(values):
    return [{"id": str(k), "x": value, "cluster": k, "topology": "H"} for k, value in enumerate(values)]


def test_means_and_their_intervals():
    values = np.random.default_rng(1).normal(5, 2, 200)
    found = statistics(rows(values.tolist()), ["id", "x", "cluster", "topology"], seed=0, resamples=1000)
    assert list(found) == ["x"], "names and words have no mean"
    one = found["x"]
    assert one["mean"] == pytest.approx(values.mean(), abs=1e-5) and one["n"] == 200
    assert one["median"] == pytest.approx(np.median(values), abs=1e-5)
    half = 1.96 * values.std() / 200**0.5  # of the normal distribution
    assert one["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert one["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_follow_from_the_seed_and_not_from_other_columns():
    made = rows(np.random.default_rng(0).normal(size=50).tolist())
    first = statistics(made, ["x"], 0, 200)
    assert statistics([row | {"y": 1.0} for row in made], ["y", "x"], 0, 200)["x"] == first["x"]
    assert statistics(made, ["x"], 1, 200) != first


def test_what_was_not_measured_does_not_count():
    made = rows([True, "skipped: no weights", False, 1.0])
    assert statistics(made, ["x"], 0, 200)["x"]["n"] == 3
    assert statistics(made, ["x"], 0, 200)["x"]["mean"] == pytest.approx(2 / 3, abs=1e-6)
    assert statistics(rows([3.0]), ["x"], 0, 200)["x"] == {"mean": 3, "median": 3, "low": None, "high": None, "n": 1}
    assert statistics(rows(["skipped: a"] * 2), ["x"], 0, 200) == {}


def test_the_reason_of_the_most():
    made = rows(["skipped: a", "skipped: b", "skipped: b"])
    assert reasons(made, ["x", "topology"]) == {"x": "b"}
    assert reasons(rows([1.0, "skipped: a"]), ["x"]) == {}
