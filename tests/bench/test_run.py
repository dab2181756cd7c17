"""Rows: which there are, and what is in them when a backend is wrong, fails, or does not serve."""

import dataclasses

import pytest
import torch

from app.bench import cases, run
from app.bench.bandwidth import IPA, beside_reading, copy_bandwidth
from app.bench.case import AUTO, REFERENCE, Job
from app.bench.operation import TRAIN
from app.bench.run import Request, Row, measured, points
from app.bench.table import best, choices, duration, table
from app.ops import select
from app.ops.backend import Backend
from tests import cuda_graph
from tests.bench.here import Here

NAME = "triangle_attention"
FIELDS = {"case", "backend", "device", "dtype", "length", "batch", "seconds", "peak_mb", "max_error"}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(run, "Apart", Here)
    monkeypatch.setattr("app.bench.memory.return_what_is_freed", lambda: None)


@pytest.fixture
def another(monkeypatch):
    """Gives the operation one more backend, with limits of its own."""

    def add(function, **limits) -> None:
        operation = select.operations()[NAME]
        monkeypatch.setitem(operation.backends, "another", Backend("another", "reference", **limits))
        monkeypatch.setitem(operation._functions, "another", function)

    return add


def rows(*only: str, said: list | None = None, **changes) -> list[Row]:
    request = Request(only, **{"device": "cpu", "lengths": [6], "dtypes": ["float32"], "repeats": 1, **changes})
    return [row for row, _ in measured(request, (said if said is not None else []).append)]


def by_backend(*only: str, **changes) -> dict[str, Row]:
    return {row.backend: row for row in rows(*only, **changes)}


@pytest.mark.parametrize("case", [NAME, NAME + TRAIN, "model-forward:tiny", "model-train:tiny", "sampling:tiny"])
def test_the_reference_and_auto_are_always_there(case):
    found = by_backend(case)
    assert {REFERENCE, AUTO} <= found.keys()
    for row in found.values():
        assert dataclasses.asdict(row).keys() == FIELDS
        assert (row.case, row.device, row.dtype, row.length, row.batch) == (case, "cpu", "float32", 6, 1)
        assert row.seconds > 0 and row.peak_mb >= 0
    assert found[REFERENCE].max_error == 0 and found[AUTO].max_error < 1e-3


def test_checkpointing_changes_no_gradient():
    assert by_backend("model-train-checkpointed:tiny")[AUTO].max_error < 1e-4


def test_training_is_recorded_before_it_is_timed_but_for_the_reference(monkeypatch):
    graphs = cuda_graph.install(monkeypatch, "app.training.recorded")
    found = by_backend("model-train-recorded:tiny")
    assert found[AUTO].max_error < 1e-4
    of_gradients, of_times = graphs
    assert of_gradients.replays == 1 and of_times.replays > 1


def test_what_training_would_not_record_is_left_out(monkeypatch):
    cuda_graph.install(monkeypatch, "app.training.recorded")
    monkeypatch.setattr("app.training.recorded.recomputes", lambda model: True)
    said: list[str] = []
    (reference,) = rows("model-train-recorded:tiny", said=said)
    assert reference.backend == REFERENCE
    assert any("auto left out: a stage with checkpoint" in line for line in said)


def test_half_precision_is_held_to_float32():
    for case, most in [(NAME, 0.05), ("model-forward:tiny", 3.0)]:
        reference = by_backend(case, dtypes=["bfloat16"])[REFERENCE]
        assert 1e-5 < reference.max_error < most


def test_sizes_are_those_asked_for():
    found = rows(NAME, lengths=[5, 7], batch=2, dtypes=["float32", "bfloat16"], backends=[])
    assert {(row.length, row.dtype, row.batch) for row in found} == {
        (length, dtype, 2) for length in (5, 7) for dtype in ("float32", "bfloat16")
    }
    assert {row.backend for row in found} == {REFERENCE, AUTO}


def test_a_wrong_backend_shows(another):
    another(lambda **given: select.operations()[NAME].function(REFERENCE)(**given) * 1.5)
    found = by_backend(NAME)
    assert found["another"].max_error == pytest.approx(0.5, rel=1e-3)
    assert found["torch"].max_error < 1e-5


def test_a_backend_that_fails_has_a_row_without_figures_and_the_others_theirs(another):
    another(lambda **_: 1 / 0)
    said: list[str] = []
    found = by_backend(NAME, said=said)
    assert (found["another"].seconds, found["another"].peak_mb, found["another"].max_error) == (None, None, None)
    assert found[AUTO].seconds > 0
    assert any("another failed: ZeroDivisionError" in line for line in said)


def test_a_backend_that_does_not_serve_has_none_and_says_why(another):
    another(lambda **_: None, shortest=50)
    said: list[str] = []
    assert "another" not in by_backend(NAME, said=said)
    assert any("another left out: takes 50 residues or more" in line for line in said)


def test_where_the_reference_fails_the_others_are_measured(monkeypatch):
    def broken(*_):
        raise MemoryError("too large")

    real = cases.case_of(NAME).job

    def job(point):
        made = real(point)

        def outputs(backend: str, dtype: torch.dtype):
            return broken() if backend == REFERENCE else made.outputs(backend, dtype)

        return Job(made.run, outputs, made.error, made.refuses, made.batch)

    monkeypatch.setitem(cases.cases(), NAME, dataclasses.replace(cases.case_of(NAME), job=job))
    found = by_backend(NAME)
    assert found[REFERENCE].seconds is None
    assert found[AUTO].seconds > 0 and found[AUTO].max_error is None


def test_every_case_has_sizes_for_every_device():
    for device in ("cpu", "cuda", "mps"):
        names = cases.standard(device)
        assert set(select.operations()) <= set(names)
        assert {"model-forward", "model-train", "sampling", "esm"} <= set(names)
        for case in names:
            if not case.startswith("longest"):
                assert points(Request([case], device), case)


def test_attention_beside_the_reading_of_its_pairs():
    def row(case: str, backend: str, seconds: float | None) -> Row:
        return Row(case, backend, "cpu", "bfloat16", 64, 2, seconds, 1.0, 0.0)

    bytes_of_pairs = 2 * 64**2 * 128 * 2
    rows = [row(IPA, REFERENCE, 9.0), row(IPA, AUTO, 3.0), row(IPA + TRAIN, AUTO, 11.0), row(IPA, "torch", None)]
    (told,) = beside_reading(rows, bandwidth=bytes_of_pairs / 2)
    assert "auto: forward 1.5 times reading the pairs once, backward 2.0 times reading and writing them" in told
    assert beside_reading(rows, None) == []
    assert copy_bandwidth("cpu") > 1e7


def test_the_table_compares_and_tells_where_auto_is_too_slow():
    def row(backend: str, seconds: float | None) -> Row:
        return Row(NAME, backend, "cpu", "float32", 64, 1, seconds, 30.0, 1e-6)

    found = [row(REFERENCE, 0.4), row(AUTO, 0.2), row("torch", 0.2), row("trifast", 0.1), row("flash", None)]
    words = ["", f"{NAME} torch", "", "", ""]
    assert table(found).row_count == 5
    assert best(found, words) == [
        f"{NAME} float32 64: trifast is best, 100 ms; auto 200 ms, 2.00 times as long: TOO SLOW"
    ]
    assert choices(found, words) == [f"auto took {NAME} torch in {NAME} float32 64"]
    slower = [found[0], row(AUTO, 0.3), found[2]]
    assert best(slower, words[:3])[0].endswith("auto 300 ms, 1.50 times as long for the same backend")
    assert [duration(seconds) for seconds in (None, 2.5, 0.01, 3e-6)] == ["not measured", "2.5 s", "10 ms", "3 us"]
