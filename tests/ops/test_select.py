"""The choice of a backend: what is named is taken or refused, `auto` takes the best that serves and says so."""

from dataclasses import replace

import pytest
import torch

from app.config.compose import compose
from app.devices import NVIDIA, is_capturing
from app.errors import UserError
from app.ops import select
from app.ops.backend import Backend, Call
from app.ops.select import Operation
from app.ops.settings import KernelSettings

NAME = "triangle_attention"
REAL = select.operations()[NAME]


def call(length: int = 64, dtype: torch.dtype = torch.float32, **changes) -> Call:
    return Call(**{"device": "cpu", "dtype": dtype, "length": length, "widths": (32,), "backward": False} | changes)


def operation(*extra: Backend, order=("fast", "torch")) -> Operation:
    backends = [Backend("reference", "reference"), Backend("torch", "chunked"), *extra]
    return Operation(NAME, backends, describe=REAL.describe, order=lambda call: order)


FAST = Backend("fast", "chunked", shortest=10, longest=100, dtypes=(torch.float32,), backward=False, dropout=False)


@pytest.fixture(autouse=True)
def settings():
    with select.using(KernelSettings()):
        yield


def named(backend: str):
    return select.using(KernelSettings.model_construct(**{NAME: backend}))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (call(9), "takes 10 to 100 residues"),
        (call(101), "takes 10 to 100 residues"),
        (call(dtype=torch.float16), "has no float16"),
        (call(backward=True), "has no backward pass"),
        (call(dropout=True), "has no dropout"),
        (call(), None),
    ],
)
def test_limits_are_told_and_auto_passes_over(asked, reason):
    choice = operation(FAST).choose(asked)
    assert choice.backend == ("torch" if reason else "fast")
    assert choice.passed_over == ((("fast", reason),) if reason else ())


def test_a_named_backend_serves_or_is_an_error_with_its_cure():
    op = operation(FAST)
    with named("fast"):
        assert op.choose(call()).backend == "fast"
        with pytest.raises(UserError, match=rf"kernels.{NAME}=fast: takes 10 to 100.*: set kernels.{NAME}=auto"):
            op.choose(call(5))


def test_a_limit_of_its_own():
    wide = Backend("fast", "chunked", limit=lambda call: "too wide" if call.widths[0] > 16 else None)
    assert operation(wide).choose(call()).passed_over == (("fast", "too wide"),)
    assert operation(wide).choose(call(widths=(16,))).backend == "fast"


def test_a_package_that_is_not_installed_is_passed_over_and_an_error_where_named():
    absent = Backend("fast", "nowhere", packages=("no-such",), modules=("no_such_package",), install="pip install it")
    op = operation(absent)
    assert op.choose(call()).passed_over == (("fast", "no-such not installed (pip install it)"),)
    with named("fast"), pytest.raises(UserError, match=r"no-such not installed.*install it, or set"):
        op.function("fast")


def test_what_fails_or_is_wrong_here_is_passed_over(monkeypatch):
    """An optional backend is run before it is trusted: that it can be imported means nothing."""
    broken = Backend("fast", "chunked", packages=("torch",), modules=("torch",))
    for function, told in [(lambda **_: 1 / 0, "fails here"), (lambda q, v, **_: v * 1.001, "wrong answers")]:
        monkeypatch.setattr(select, "_faults", {})
        op = operation(broken)
        op._functions["fast"] = function
        choice = op.choose(call())
        assert choice.backend == "torch" and told in choice.passed_over[0][1]


def test_an_optional_backend_is_tried_once(monkeypatch):
    monkeypatch.setattr(select, "_faults", {})
    op, runs = operation(Backend("fast", "chunked", packages=("torch",), modules=("torch",))), []
    real = op.function("torch")
    op._functions["fast"] = lambda **arguments: runs.append(1) or real(**arguments)
    assert [op.choose(call(length)).backend for length in (5, 6, 7)] == ["fast"] * 3
    assert len(runs) == 1


OPTIONAL = Backend("fast", "chunked", packages=("torch",), modules=("torch",))
PUBLISHED, OTHER = (32, 4), (16, 2)


@pytest.fixture
def wrong_elsewhere(monkeypatch) -> Operation:
    """An operation whose optional backend is right at published widths and wrong at all others."""
    monkeypatch.setattr(select, "_faults", {})
    op, right = operation(OPTIONAL), REAL.function("torch")
    op._functions["fast"] = lambda q, **rest: right(q=q, **rest) * (1.0 if q.shape[-1] == PUBLISHED[0] else 1.1)
    return op


def test_what_is_wrong_at_other_widths_is_taken_at_published_ones_alone(wrong_elsewhere):
    choices = [wrong_elsewhere.choose(call(widths=widths)) for widths in (PUBLISHED, OTHER, PUBLISHED)]
    assert [choice.backend for choice in choices] == ["fast", "torch", "fast"]
    assert "wrong answers" in choices[1].passed_over[0][1]
    with named("fast"):
        assert wrong_elsewhere.choose(call(widths=PUBLISHED)).backend == "fast"
        with pytest.raises(UserError, match=r"wrong answers here.*set kernels.triangle_attention=auto"):
            wrong_elsewhere.choose(call(widths=OTHER))


@pytest.mark.parametrize(
    "other",
    [{"device": "cuda"}, {"dtype": torch.float16}, {"widths": OTHER}, {"backward": True}],
    ids=str,
)
def test_a_trial_tells_of_its_own_device_type_widths_and_pass_alone(monkeypatch, other):
    monkeypatch.setattr(select, "_faults", {})
    one, another = call(widths=PUBLISHED), call(**{"widths": PUBLISHED} | other)
    tried = []

    def trial(operation: Operation, name: str, asked: Call) -> str | None:
        tried.append(asked)
        return "broken" if {key: getattr(asked, key) for key in other} == other else None

    monkeypatch.setattr(select, "_try", trial)
    op = operation(OPTIONAL)
    assert [op.choose(asked).backend for asked in (one, another, one, another)] == ["fast", "torch", "fast", "torch"]
    assert len(tried) == 2
    other_name = Operation("pair_bias_attention", [*op.backends.values()], REAL.describe, op.order)
    assert other_name.choose(one).backend == "fast" and len(tried) == 3


def test_nothing_is_tried_while_a_cuda_graph_records(monkeypatch, wrong_elsewhere):
    monkeypatch.setattr(select, "is_capturing", lambda: True)
    assert "CUDA graph" in wrong_elsewhere.choose(call(widths=PUBLISHED)).passed_over[0][1]
    monkeypatch.setattr(select, "is_capturing", lambda: False)
    assert wrong_elsewhere.choose(call(widths=PUBLISHED)).backend == "fast"
    monkeypatch.setattr(select, "is_capturing", lambda: True)
    assert wrong_elsewhere.choose(call(widths=PUBLISHED)).backend == "fast"


@pytest.mark.gpu
def test_a_recording_graph_is_seen():
    seen, x = [is_capturing()], torch.zeros(1, device=NVIDIA)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        x.add_(1)
        seen.append(is_capturing())
    assert [*seen, is_capturing()] == [False, True, False]


@pytest.mark.parametrize(("widths", "taken"), [(PUBLISHED, "fast"), (OTHER, "torch")])
def test_a_compiler_that_comes_first_has_it_tried_too(wrong_elsewhere, widths, taken):
    wrong_elsewhere.function("torch")
    example = REAL.example(5, 1, 0, *widths)
    given = {name: value.float().requires_grad_(name != "mask") for name, value in example.items()}
    torch._dynamo.reset()
    compiled = torch.compile(lambda **arguments: wrong_elsewhere(**arguments), backend="aot_eager", fullgraph=True)
    out = compiled(**given)
    out.sum().backward()
    torch.testing.assert_close(out, REAL.function("reference")(**given))
    assert [choice.backend for choice in select.choices()] == [taken]
    assert [(key[4], key[5]) for key in select._faults] == [(widths, True)]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("Triton Error [CUDA]: out of memory")])
def test_running_out_of_memory_is_no_fault_of_the_backend(monkeypatch, error):
    monkeypatch.setattr(select, "_faults", {})
    op, room = operation(OPTIONAL), [False, True]

    def full(**arguments):
        if not room.pop(0):
            raise error
        return REAL.function("torch")(**arguments)

    op._functions["fast"] = full
    with pytest.raises(type(error)):
        op.choose(call())
    assert op.choose(call()).backend == "fast"


@pytest.mark.parametrize("group", ["auto", "fast"])
def test_a_trial_in_a_block_that_is_made_again_is_no_part_of_the_block(monkeypatch, group):
    """Its own backward pass must not set off the block's, nor what it keeps be counted among what the block keeps."""
    monkeypatch.setattr(select, "_faults", {})
    op = operation(OPTIONAL)
    example = REAL.example(5, 1, 0, *OTHER)
    given = {name: value.float().requires_grad_(name != "mask") for name, value in example.items()}
    given["q"] = torch.nn.Parameter(given["q"].detach())

    def block(q):
        return op(**(given | {"q": q.tanh()}))

    (expected,) = torch.autograd.grad(block(given["q"]).square().sum(), given["q"])
    select._faults.clear()
    with named(group):
        out = torch.utils.checkpoint.checkpoint(block, given["q"], use_reentrant=False)
        (found,) = torch.autograd.grad(out.square().sum(), given["q"])
    assert list(select._faults.values()) == [None]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("group", ["auto", "fast"])
def test_before_a_run_all_is_tried_that_longer_chains_may_ask_for(monkeypatch, group):
    monkeypatch.setattr(select, "_faults", {})
    op = operation(replace(OPTIONAL, shortest=200))
    op.order = lambda call: ("fast", "torch") if call.length >= 4096 else ("torch",)
    op._functions["fast"] = REAL.function("torch")
    monkeypatch.setattr(select, "operations", lambda: {NAME: op})
    with named(group):
        select.prepare(torch.device("cpu"), torch.float32, backward=True, used=[NAME])
    assert [(key[1], key[4], value) for key, value in select._faults.items()] == [("fast", PUBLISHED, None)]


def test_autocast_around_a_call_is_not_around_its_trial(monkeypatch):
    monkeypatch.setattr(select, "_faults", {})
    op = operation(OPTIONAL)
    op._functions["fast"] = lambda q, **rest: REAL.function("torch")(q=q @ torch.eye(q.shape[-1]), **rest)
    with torch.autocast("cpu", torch.bfloat16):
        assert op.choose(call()).backend == "fast"


def test_it_is_tried_at_a_length_that_it_takes(monkeypatch):
    monkeypatch.setattr(select, "_faults", {})
    long = replace(OPTIONAL, limit=lambda call: "too short" if call.length < 41 and call.widths[0] < 32 else None)
    op, lengths, right = operation(long), [], REAL.function("torch")
    op._functions["fast"] = lambda q, **rest: lengths.append(q.shape[1]) or right(q=q, **rest)
    for widths in (PUBLISHED, OTHER):
        assert op.choose(call(64, widths=widths)).backend == "fast"
    assert lengths == [33, 41]


def test_choices_are_kept_once_by_operation_and_backend():
    op = operation(FAST)
    for length in (20, 30, 5, 6):
        op.choose(call(length))
    told = [str(choice) for choice in select.choices()]
    assert told == [
        f"{NAME}: fast (cpu, float32, 20 residues)",
        f"{NAME}: torch (cpu, float32, 5 residues; fast: takes 10 to 100 residues)",
    ]
    select.use(KernelSettings())
    assert select.choices() == []


def test_the_settings_reach_the_threads_of_the_backward_pass(monkeypatch):
    """Recomputation runs there: it must find the backend that the forward pass had."""
    from concurrent.futures import ThreadPoolExecutor

    with named("reference"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(REAL.choose, call()).result().backend == "reference"


def test_it_compiles_without_a_break():
    given = {name: value.float() for name, value in REAL.example(5).items()}
    select.prepare(torch.device("cpu"), torch.float32, backward=False, used=[NAME])
    compiled = torch.compile(lambda **arguments: REAL(**arguments), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**given), REAL(**given))
    assert [choice.operation for choice in select.choices()] == [NAME]


def test_gradients_are_seen_wherever_they_are():
    leaf = torch.ones(2, requires_grad=True)
    assert select.wants_gradient(torch.ones(2), (torch.ones(2), (leaf,)))
    assert not select.wants_gradient(torch.ones(2), None, 3)
    with torch.no_grad():
        assert not select.wants_gradient(leaf)


def test_what_was_passed_over_is_told_though_the_same_backend_served_before(monkeypatch):
    """A chain that is too short for it anyway must not hide that a backend is broken."""
    monkeypatch.setattr(select, "_faults", {})
    absent = Backend("fast", "nowhere", shortest=10, packages=("no-such",), modules=("no_such_package",))
    backends = [Backend("reference", "reference"), Backend("torch", "chunked"), absent]
    op = Operation(NAME, backends, REAL.describe, lambda call: ("fast", "torch") if call.length > 9 else ("torch",))
    news = select.News()
    op.choose(call(5))
    assert news.lines() == [f"kernels (cpu, float32, 5 residues): {NAME}=torch"]
    op.choose(call(20))
    assert [line.split(": not ")[1] for line in news.lines()] == ["fast: no-such not installed ()"]
    op.choose(call(21))
    assert news.lines() == []


def test_other_devices_backends_are_no_news():
    choice = operation(Backend("fast", "chunked", devices=("nowhere",))).choose(call())
    assert (choice.backend, choice.passed_over) == ("torch", ())


def test_only_what_auto_may_take_is_tried_and_what_is_named_is_too(monkeypatch):
    monkeypatch.setattr(select, "_faults", {})
    idle = Backend("idle", "nowhere", packages=("torch",), modules=("torch",))
    broken = Backend("fast", "chunked", packages=("torch",), modules=("torch",))
    op = operation(broken, idle)
    op._functions["fast"] = lambda **arguments: REAL.function("torch")(**arguments) + 1
    monkeypatch.setattr(select, "operations", lambda: {NAME: op})
    select.prepare(torch.device("cpu"), torch.float32, backward=True, used=[NAME])
    assert [key[1] for key in select._faults] == ["fast"]
    with named("fast"), pytest.raises(UserError, match=r"wrong answers here.*set kernels.triangle_attention=auto"):
        op.choose(call())
    with (
        named("idle"),
        pytest.raises(UserError, match=r"=idle: cannot be imported.*set kernels.triangle_attention"),
    ):
        select.prepare(torch.device("cpu"), torch.float32, backward=True, used=[NAME])


def test_a_set_of_backends_without_use_and_a_type_that_one_lacks_are_refused():
    trifast = KernelSettings(triangle_attention="trifast")
    with pytest.raises(UserError, match="kernels=trifast has no effect: this model has no triangle_attention"):
        select.refuse_idle([], "trifast", trifast, ["edge_transition"])
    select.refuse_idle([], "trifast", trifast, ["triangle_attention"])
    select.refuse_idle([], "auto", KernelSettings(), [])
    narrow = KernelSettings(edge_transition="triton")
    with pytest.raises(UserError, match=r"edge_transition=triton: serves bfloat16, float16, .* runs in float32"):
        select.require(narrow, torch.device("cuda"), torch.float32, ["edge_transition"])


def test_all_that_run_elsewhere_are_told_at_once():
    asked = torch.device("cpu"), torch.bfloat16, ["edge_embedding", "edge_transition", "self_attention"]
    both = KernelSettings(edge_embedding="triton", edge_transition="triton")
    told = "kernels.edge_embedding=triton, kernels.edge_transition=triton: run on cuda, not on cpu: set kernels=auto or"
    with pytest.raises(UserError, match=told):
        select.require(both, *asked)
    told = "kernels.edge_transition=triton: runs on cuda, not on cpu: set kernels.edge_transition=auto or another"
    with pytest.raises(UserError, match=told):
        select.require(KernelSettings(edge_transition="triton"), *asked)


def test_the_group_of_our_kernels_serves_every_precision(monkeypatch):
    """That of trainer=gpu too, which is float32 unless it is told otherwise."""
    for operation in select.operations().values():
        if "triton" in operation.backends:
            monkeypatch.setitem(operation._functions, "triton", operation.function("reference"))
    wanted = KernelSettings(**compose("train", ["recipe=multiflow_legacy", "kernels=triton"])["kernels"])
    assert wanted.invariant_point_attention == "triton"
    for dtype in (torch.float32, torch.bfloat16):
        select.require(wanted, torch.device("cuda"), dtype, select.OPERATIONS, backward=True)


def test_a_backend_without_a_backward_pass_is_refused_before_training_alone(monkeypatch):
    operation, wanted = select.operations()["self_attention"], KernelSettings(self_attention="triton")
    monkeypatch.setitem(operation._functions, "triton", operation.function("reference"))
    asked = wanted, torch.device("cuda"), torch.float32, ["self_attention"]
    select.require(*asked)
    with pytest.raises(UserError, match=r"self_attention=triton: has no backward pass.*set kernels.self_attention"):
        select.require(*asked, backward=True)
