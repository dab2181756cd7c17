"""What doctor says of backends that are right, wrong, broken, missing, or meant for another machine."""

import pytest
import torch

from app.bench import doctor, trials
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

    add.operation, add.reference = operation, operation.function("reference")
    return add


def row(name: str = "another", lengths=(4, 8)) -> doctor.Row:
    return next(one for one in examine("cpu", lengths) if one.backend == name)


def test_what_is_right_has_errors_times_and_its_place_in_auto(another):
    for name in ("reference", "torch"):
        found = row(name)
        assert (found.status, found.reason) == ("ok", "")
        assert 0 < found.max_error < 2e-5 and 0 < found.max_grad_error < 2e-5
        assert found.seconds.keys() == {4, 8} and all(seconds > 0 for seconds in found.seconds.values())
        assert found.dtypes.keys() == {"float32", "bfloat16"}
        assert found.dtypes["float32"].seconds == found.seconds
        half = found.dtypes["bfloat16"]
        assert half.status == "ok" and half.seconds.keys() == {4, 8} and 2e-5 < half.max_error < 4e-2
    everywhere = {"float32": [4, 8], "bfloat16": [4, 8]}
    assert row("torch").chosen_by_auto == {"inference": everywhere, "training": everywhere}
    assert row("reference").chosen_by_auto == {}


def test_auto_may_take_another_in_training(another, monkeypatch):
    another(another.reference, backward=False)
    monkeypatch.setattr(another.operation, "order", lambda call: ("another", "torch"))
    found = {one.backend: one for one in examine("cpu", (4,))}
    assert found["another"].chosen_by_auto == {"inference": {"float32": [4], "bfloat16": [4]}}
    assert found["torch"].chosen_by_auto == {"training": {"float32": [4], "bfloat16": [4]}}
    assert found["another"].max_error < 2e-5 and found["another"].max_grad_error is None
    assert found["another"].reason == "forward alone: has no backward pass"


def test_a_type_in_which_it_is_wrong_or_fails_has_its_own_status(another):
    def wrong_in_half(q, **given):
        return another.reference(q=q, **given) * (1.1 if q.dtype == torch.bfloat16 else 1.0)

    another(wrong_in_half)
    found = row()
    assert (found.status, found.dtypes["float32"].status, found.dtypes["bfloat16"].status) == ("wrong", "ok", "wrong")
    assert found.reason.startswith("bfloat16: values off by 1") and found.max_error < 2e-5
    assert found.seconds.keys() == {4, 8} and found.dtypes["bfloat16"].seconds == {}
    another(another.reference, dtypes=(torch.bfloat16,))
    found = row()
    assert (found.status, found.reason, found.dtypes["float32"].status) == ("ok", "", "not here")
    assert 2e-5 < found.max_error < 4e-2 and found.seconds == found.dtypes["bfloat16"].seconds
    assert found.seconds.keys() == {4, 8}


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
    assert (row().status, row().reason) == ("not here", "float32: has no float32; bfloat16: has no bfloat16")


def test_what_takes_too_long_is_left_out_and_said(another, monkeypatch):
    monkeypatch.setattr(doctor, "_LONG", 0.0)
    found = row("torch", lengths=(4, 512))
    assert found.seconds[4] > 0 and found.seconds[512] is None
    assert found.reason == "512 not timed: more than 0 s expected"


def test_all_of_an_operation_take_turns(another, monkeypatch):
    together = []
    monkeypatch.setattr(
        trials, "medians", lambda calls, *_, **__: together.append([*calls]) or dict.fromkeys(calls, 1.0)
    )
    another(another.reference)
    examine_all = list(examine("cpu", (4,)))
    assert together == [["reference", "torch", "another"]] * 2 and len(examine_all) == 5


def test_what_crashes_while_it_is_timed_has_no_time_and_the_others_have_theirs(another, monkeypatch):
    class Fragile(Here):
        def __call__(self, function, *arguments):
            if function is trials.seconds and "another" in arguments[1]:
                raise Failed("its process crashed")
            return super().__call__(function, *arguments)

    monkeypatch.setattr(doctor, "Apart", Fragile)
    another(another.reference)
    found = {one.backend: one for one in examine("cpu", (4, 8))}
    assert found["another"].status == "ok" and found["another"].seconds == {4: None, 8: None}
    assert found["another"].reason == "4, 8 failed: its process crashed"
    for name in ("reference", "torch"):
        assert all(found[name].seconds.values()) and found[name].reason == ""


def test_a_crash_of_what_auto_tries_hides_no_row(another, monkeypatch):
    class Fragile(Here):
        def __call__(self, function, *arguments):
            if function is trials.chosen and arguments[3]:
                raise Failed("its process crashed")
            return super().__call__(function, *arguments)

    monkeypatch.setattr(doctor, "Apart", Fragile)
    assert row("torch").chosen_by_auto == {"inference": {"float32": [4, 8], "bfloat16": [4, 8]}}


def test_on_a_gpu_all_three_types_are_tried(monkeypatch):
    assert doctor.DTYPES["cuda"] == ("float32", "bfloat16", "float16")
    assert trials.attempt(NAME, "torch", "cpu", "float16").status == "ok"


def test_in_tf32_errors_are_held_to_its_bound(another, monkeypatch):
    another(lambda **given: another.reference(**given) * (1 + 1e-3))
    assert row().dtypes["float32"].status == "wrong"
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert row().dtypes["float32"].status == "ok"


def test_lengths_beyond_a_limit_have_no_time(another):
    another(another.reference, longest=50)
    found = row(lengths=(4, 60))
    assert found.seconds[60] is None and found.reason == "60 not timed: takes 1 to 50 residues"
