"""How many designs are made at once follows from a device's memory, and what is made of it fits."""

import pytest
import torch

from app.estimate import at_once
from app.estimate.at_once import SHARE, room
from app.estimate.needs import Needs
from app.model.codesign import CodesignModel
from app.ops.settings import KernelSettings
from tests.factories import tiny_model

CPU, LENGTHS = torch.device("cpu"), [20, 40, 90]


def of(model, left, monkeypatch, processes=1, lengths=LENGTHS, most=1000):
    said = []
    monkeypatch.setattr(at_once, "memory_left", lambda device: left)
    fit = room(model, CPU, torch.float32, KernelSettings(), processes, said.append)(lengths, most)
    return [fit(length) for length in lengths], said


def test_batches_take_what_there_is_and_no_more(monkeypatch):
    settings, left = tiny_model().settings, 60 * 2**20
    sizes, said = of(settings, left, monkeypatch)
    assert 1000 > sizes[0] > sizes[1] > sizes[2] > 1 and not said
    needs = Needs(
        lambda: CodesignModel(settings), lambda *_: None, "cpu", KernelSettings(), half=False, accumulates=False
    )
    shares = [(needs.sampling(n, length).peak - needs.weights) / left for n, length in zip(sizes, LENGTHS, strict=True)]
    assert shares == [pytest.approx(SHARE, rel=0.05), pytest.approx(SHARE, rel=0.3), pytest.approx(SHARE, rel=0.05)]
    assert max(shares) <= SHARE
    assert of(settings, 2 * left, monkeypatch, processes=2, lengths=[90])[0][0] == pytest.approx(sizes[2], rel=0.05)
    assert of(settings, 100 * left, monkeypatch, most=64)[0] == [64, 64, 64]
    assert of(settings, 1000, monkeypatch, lengths=[40])[0] == [1]  # alone it is tried all the same


def test_an_estimate_that_fails_costs_no_run(monkeypatch):
    monkeypatch.setattr(at_once, "Needs", lambda *_, **__: 1 / 0)
    sizes, said = of(tiny_model().settings, 2**30, monkeypatch)
    assert sizes == [1000, 250, 49]
    why = "ZeroDivisionError: division by zero"
    assert said == [f"no estimate of the memory that designs take ({why}): batches of B * N^2 <= 400000"]
