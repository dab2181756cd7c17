"""Medians of calls by turns."""

import time

import pytest
import torch

from app.bench import timing

CPU = torch.device("cpu")


def test_seconds_are_those_of_a_call():
    found = timing.medians({"short": lambda: time.sleep(0.01), "long": lambda: time.sleep(0.03)}, CPU, repeats=2)
    assert found["short"] == pytest.approx(0.01, abs=0.008)
    assert found["long"] == pytest.approx(0.03, abs=0.02)


def test_backends_take_turns(monkeypatch):
    monkeypatch.setattr(timing, "_ROUND", 0)
    order = []
    timing.medians({name: lambda name=name: order.append(name) for name in "ab"}, CPU, repeats=3)
    assert "".join(order) == "ababab"


def test_long_calls_are_repeated_less(monkeypatch):
    monkeypatch.setattr(timing, "_LONG", 0)
    calls = []
    timing.medians({"a": lambda: (calls.append(1), time.sleep(0.2))}, CPU, repeats=9)
    assert len(calls) == 3


def test_a_slow_moment_does_not_count(monkeypatch):
    monkeypatch.setattr(timing, "_ROUND", 0)
    pauses = iter([0.001, 0.2, 0.001, 0.001, 0.001])
    found = timing.medians({"a": lambda: time.sleep(next(pauses))}, CPU, repeats=5)
    assert found["a"] < 0.1
