"""The search for the longest chain, with a memory that is made up."""

import pytest

from app.bench import longest
from app.bench.case import AUTO, Point
from app.errors import UserError


def search(monkeypatch, limit: int, seconds: float = 1.0) -> longest.Longest:
    monkeypatch.setattr(longest.Made, "at", lambda point: None)
    passes = lambda made, point, backend, length: (seconds, length) if length <= limit else None  # noqa: E731
    monkeypatch.setattr(longest, "_pass", passes)
    return longest.longest(Point("longest", "cuda", "float32", 0, 1), AUTO)


@pytest.mark.parametrize("limit", [256, 300, 511, 512, 1000, 5000, 33_333])
def test_it_ends_within_a_step_of_the_limit(monkeypatch, limit):
    found = search(monkeypatch, limit)
    assert limit - longest.STEP < found.length <= limit
    assert found.peak == found.length and found.stopped is None


def test_it_says_where_it_stopped_before_memory_ran_out(monkeypatch):
    found = search(monkeypatch, 10**9)
    assert found.length == longest.LAST and "not tried" in found.stopped
    slow = search(monkeypatch, 10**9, seconds=longest.LONG)
    assert slow.length == longest.FIRST and "not tried" in slow.stopped


def test_what_fails_otherwise_ends_the_search_with_what_was_found(monkeypatch):
    def passes(made, point, backend, length):
        if length > 700:
            raise RuntimeError("an index too large")
        return 1.0, length

    monkeypatch.setattr(longest.Made, "at", lambda point: None)
    monkeypatch.setattr(longest, "_pass", passes)
    found = longest.longest(Point("longest", "cuda", "float32", 0, 1), AUTO)
    assert (found.length, found.stopped) == (512, "1024 residues failed: RuntimeError: an index too large")


def test_what_does_not_fit_at_all_is_an_error(monkeypatch):
    with pytest.raises(RuntimeError, match="not even 256"):
        search(monkeypatch, 100)


def test_it_is_not_for_machines_that_running_out_of_memory_would_stop():
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        longest.longest(Point("longest", "cpu", "float32", 0, 1), AUTO)
