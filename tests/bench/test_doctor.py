"""What doctor says of backends that are right, wrong, broken, missing, or meant for another machine."""

import pytest

from app.bench import doctor
from app.bench.apart import Failed
from app.bench.doctor import examine
from app.ops import select
from app.ops.backend import Backend
from tests.bench.here import Here

NAME = "triangle_attention"


@pytest.fixture
def another(monkeypatch):
    """Gives the operation one more backend and leaves all other operations out."""
    operation = select.operations()[NAME]
    monkeypatch.setattr(doctor, "Apart", Here)
    monkeypatch.setattr(select, "operations", lambda: {NAME: operation})

    def add(function=None, name: str = "another", **declared) -> None:
        monkeypatch.setitem(operation.backends, name, Backend(name, "reference", **declared))
        monkeypatch.setitem(operation._functions, name, function)

    add.reference = operation.function("reference")
    return add


def row(name: str = "another", lengths=(4, 8)) -> doctor.Row:
    return next(one for one in examine("cpu", lengths) if one.backend == name)


def test_what_is_right_has_errors_times_and_its_place_in_auto(another):
    for name in ("reference", "torch"):
        found = row(name)
        assert (found.status, found.reason) == ("ok", "")
        assert 0 < found.max_error < 2e-5 and 0 < found.max_grad_error < 2e-5
        assert found.seconds.keys() == {4, 8} and all(seconds > 0 for seconds in found.seconds.values())
    assert row("torch").chosen_by_auto == {"float32": [4, 8]}
    assert row("reference").chosen_by_auto == {}


def test_wrong_values_and_wrong_gradients_are_wrong(another):
    another(lambda **given: another.reference(**given) * 1.01)
    assert row().status == "wrong"
    another(lambda q, **given: another.reference(q=q.detach(), **given))
    found = row()
    assert (found.status, found.max_error < 1e-5, found.max_grad_error) == ("wrong", True, 1.0)
    assert "gradients by 1.0e+00 (q)" in found.reason


def test_what_raises_has_failed(another):
    another(lambda **_: 1 / 0)
    found = row()
    assert (found.status, found.seconds, found.max_error) == ("failed", {}, None)
    assert "division by zero" in found.reason


def test_what_crashes_has_failed_and_the_others_go_on(another, monkeypatch):
    class Fragile(Here):
        def __call__(self, function, *arguments):
            if "another" in arguments:
                raise Failed("its process crashed")
            return super().__call__(function, *arguments)

    monkeypatch.setattr(doctor, "Apart", Fragile)
    another(lambda **_: None)
    assert (row().status, row().reason) == ("failed", "its process crashed")
    assert row("torch").status == "ok"


def test_what_is_missing_or_for_other_machines_says_so(another):
    another(packages=("no-such",), modules=("no_such_package",), install="pip install it")
    assert (row().status, row().reason) == ("unavailable", "no-such not installed (pip install it)")
    assert (row().package, row().version) == ("no-such", None)
    another(devices=("cuda",), packages=("no-such",), modules=("no_such_package",))
    assert (row().status, row().reason) == ("not here", "needs an NVIDIA GPU")
    another(dtypes=())
    assert (row().status, row().reason) == ("not here", "has no float32")


def test_what_takes_too_long_is_left_out_and_said(another, monkeypatch):
    monkeypatch.setattr(doctor, "_LONG", 0.0)
    found = row("torch", lengths=(4, 512))
    assert found.seconds[4] > 0 and found.seconds[512] is None
    assert "512 not timed: it may take" in found.reason


def test_lengths_beyond_a_limit_have_no_time(another):
    another(another.reference, longest=50)
    found = row(lengths=(4, 60))
    assert found.seconds[60] is None and "60: takes 1 to 50 residues" in found.reason
