"""How the processes of one run end: those that Lightning started after the first, but for what they alone have met."""

import os
import time

import pytest
from lightning.pytorch.utilities import rank_zero_only

from app.errors import OfOneProcess, UserError
from app.launched import after_the_first


@pytest.fixture
def second(monkeypatch):
    """The process of rank 1, whose parent is there for another 0.2 seconds."""
    ends = time.monotonic() + 0.2
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setattr(os, "getppid", lambda: 100 if time.monotonic() < ends else 1)
    return ends


def waits_until_left(error=None, seconds=30.0) -> float:
    began = time.monotonic()
    try:
        with after_the_first(seconds):
            if error is not None:
                raise error
    except type(error or UserError()):
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("error", [None, UserError("of all")])
def test_it_ends_after_the_first(second, error):
    waits_until_left(error)
    assert second <= time.monotonic() < second + 5


@pytest.mark.parametrize("error", [OfOneProcess("a worker died"), ValueError("a defect")])
def test_what_the_others_know_nothing_of_is_not_held_up(second, error):
    assert waits_until_left(error) < 0.15


def test_nobody_is_waited_for_that_is_gone_or_stays_too_long(second, monkeypatch):
    assert 0.05 <= waits_until_left(seconds=0.05) < 0.15
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("the first has ended"))
    with after_the_first():
        monkeypatch.setattr(os, "getppid", lambda: 1)


def test_the_first_waits_for_nobody(second, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert waits_until_left() < 0.15
