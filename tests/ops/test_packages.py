"""Adapters to optional packages over stand-ins that keep the packages' conventions, faults included."""

import importlib
import inspect
import re
import sys
import tomllib
import types
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.devices import NVIDIA
from app.errors import UserError
from app.ops.backend import Call
from app.ops.check import BOUNDS, cast, compare
from app.ops.factorised_attention import widened_widths
from app.ops.packages import shortest_in_cuequivariance
from app.ops.select import operations

HERE = operations()
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


WITH_MASK = {"triangle_attention": "mask", "pair_bias_attention": "key_mask"}


def attended(q, k, v, bias, present, scale):
    logits = (scale * q @ k.mT + bias).float()
    return logits.masked_fill(~present, -1e9).softmax(-1).to(v.dtype) @ v


class Trifast:
    """trifast 0.1.13: heads first, a mask of what is absent, and rows without keys averaged over a padded length."""

    @staticmethod
    def triangle_attention(q, k, v, b, mask):
        size, heads, length, _, width = q.shape
        assert (b.shape, mask.shape) == ((size, heads, length, length), (size, length, length))
        assert mask.dtype == torch.bool and q.dtype == k.dtype == v.dtype
        present = ~mask[:, None, :, None]
        out = attended(q, k, v, b[:, :, None], present, width**-0.5)
        padded = -(-length // 16) * 16
        return torch.where(present.any(-1, keepdim=True), out, (v.mean(-2, keepdim=True) * length / padded).detach())


class CuEquivariance:
    """cuequivariance-torch 0.10 to 0.13: rows first, a mask of what is there, rows without keys twice as large."""

    @staticmethod
    def triangle_attention(q, k, v, bias, mask=None, scale=None, return_aux=False):
        size, rows, heads, length, _ = q.shape
        assert (bias.shape, mask.shape) == ((size, 1, heads, length, length), (size, rows, 1, 1, length))
        assert mask.dtype == torch.bool and q.dtype == k.dtype == v.dtype and not torch.is_autocast_enabled("cpu")
        wrong = torch.where(mask.any(-1, keepdim=True), 1.0, 2.0).to(v.dtype)
        return attended(q, k, v, bias, mask, scale) * wrong

    @staticmethod
    def triangle_multiplicative_update(
        x, direction="outgoing", mask=None, norm_in_weight=None, norm_in_bias=None, p_in_weight=None, p_in_bias=None,
        g_in_weight=None, g_in_bias=None, norm_out_weight=None, norm_out_bias=None, p_out_weight=None, p_out_bias=None,
        g_out_weight=None, g_out_bias=None, eps=1e-5, precision=None,
    ):  # fmt: skip
        weights = p_in_weight, g_in_weight, p_out_weight, g_out_weight
        assert {weight.dtype for weight in weights} == {mask.dtype}
        norm = torch.nn.functional.layer_norm
        seen = norm(x.float(), x.shape[-1:], norm_in_weight.float(), norm_in_bias.float(), eps).to(mask.dtype)
        a, b = ((seen @ p_in_weight.mT) * (seen @ g_in_weight.mT).sigmoid() * mask[..., None]).chunk(2, -1)
        sums = "bikd,bjkd->bijd" if direction == "outgoing" else "bkid,bkjd->bijd"
        out = torch.einsum(sums, a, b).float()
        out = norm(out, out.shape[-1:], norm_out_weight.float(), norm_out_bias.float(), eps).to(mask.dtype)
        return (out @ p_out_weight.mT) * (seen @ g_out_weight.mT).sigmoid()


class FlashAttention:
    """flash-attn 2.8: half precision, one width up to 256 for all, no mask and no bias."""

    @staticmethod
    def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None):
        assert q.dtype in (torch.float16, torch.bfloat16) and q.shape == k.shape == v.shape and q.shape[-1] <= 256
        dtype = q.dtype
        q, k, v = (x.float().transpose(1, 2) for x in (q, k, v))
        return ((softmax_scale * q @ k.mT).softmax(-1) @ v).transpose(1, 2).to(dtype)

    @staticmethod
    def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=None):
        assert q.dtype in (torch.float16, torch.bfloat16) and cu_seqlens_q.dtype == torch.int32
        lengths = cu_seqlens_q.diff().tolist()
        assert max_seqlen_q == max_seqlen_k == max(lengths)
        outs = []
        for one in zip(*(x.float().transpose(0, 1).split(lengths, dim=1) for x in (q, k, v)), strict=True):
            outs.append(attended(*one, 0.0, torch.ones(1, dtype=bool), q.shape[-1] ** -0.5).transpose(0, 1))
        return torch.cat(outs).to(q.dtype)


STAND_INS = {"trifast": Trifast, "cuequivariance_torch": CuEquivariance, "flash_attn": FlashAttention}
CASES = [
    (name, backend.name)
    for name, operation in HERE.items()
    for backend in operation.backends.values()
    if STAND_INS.keys() & set(backend.modules)
]


@pytest.fixture(autouse=True)
def packages(monkeypatch):
    monkeypatch.setenv("TRIFAST_FORCE_TUNE", "1")  # the stand-in has no kernels to give tiles to
    monkeypatch.setitem(sys.modules, "trifast.triton", types.ModuleType("trifast.triton"))
    for name, stand_in in STAND_INS.items():
        module = types.ModuleType(name)
        module.__dict__.update(inspect.getmembers(stand_in, inspect.isfunction))
        module.triton = sys.modules["trifast.triton"]
        monkeypatch.setitem(sys.modules, name, module)
    adapters = [f"app.ops.{name}.{HERE[name].backends[backend].module}" for name, backend in CASES]
    for operation in HERE.values():
        monkeypatch.setattr(operation, "_functions", {})
    for adapter in adapters:
        monkeypatch.delitem(sys.modules, adapter, raising=False)
    yield
    for adapter in adapters:
        sys.modules.pop(adapter, None)


@pytest.fixture
def loaded(monkeypatch):
    """The operation, with the backend's function over the stand-in."""

    def load(name: str, backend: str):
        operation = HERE[name]
        module = importlib.import_module(f"app.ops.{name}.{operation.backends[backend].module}")
        operation._functions[backend] = getattr(module, name)
        return operation

    return load


@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize(
    ("name", "backend", "dtype"),
    [(name, backend, dtype) for name, backend in CASES for dtype in HERE[name].backends[backend].dtypes],
)
def test_values_and_gradients_are_those_of_the_reference(loaded, name, backend, dtype, length):
    operation = loaded(name, backend)
    example = operation.example(length, batch=2)
    errors = compare(operation, backend, example, CPU, dtype)
    assert errors.within(BOUNDS[dtype]), errors


@pytest.mark.parametrize(("name", "backend"), [case for case in CASES if case[0] == "triangle_attention"])
def test_rows_without_keys_are_zero_and_let_no_gradient_through(loaded, name, backend):
    given = {key: value.float() for key, value in loaded(name, backend).example(5).items()}
    v = given["v"].requires_grad_()
    out = HERE[name].function(backend)(**given)
    out.sum().backward()
    assert not out[:, 1].any() and not v.grad[:, 1].any()
    assert out[:, 0].any() and v.grad[:, 0].any()


@pytest.mark.parametrize(("name", "backend"), [case for case in CASES if case[0] in WITH_MASK])
def test_packages_are_never_shown_a_row_without_keys(loaded, monkeypatch, name, backend):
    """Of which their kernels make what they like, and another version something else."""
    shown, attend = [], attended

    def seen(q, k, v, bias, present, scale):
        shown.append(bool(present.any(-1).all()))
        return attend(q, k, v, bias, present, scale)

    operation = loaded(name, backend)
    monkeypatch.setattr(sys.modules[__name__], "attended", seen)
    given = cast(operation.example(5, batch=2), CPU, torch.float32)
    assert not given[WITH_MASK[name]].any(-1).all()
    assert operation.function(backend)(**given).isfinite().all() and shown == [True]


@pytest.mark.parametrize(("told", "gives"), [(None, True), ("0", True), ("1", False)])
def test_trifast_is_given_tiles_unless_it_is_to_search(monkeypatch, told, gives):
    made = {name: types.SimpleNamespace(configs=[]) for name in ("_fwd", "_bwd_q", "_bwd_kv", "_bwd_b")}
    sys.modules["trifast.triton"].__dict__.update(made)
    monkeypatch.delenv("TRIFAST_FORCE_TUNE") if told is None else monkeypatch.setenv("TRIFAST_FORCE_TUNE", told)
    importlib.import_module("app.ops.triangle_attention.trifast")
    assert [len(kernel.configs) for kernel in made.values()] == [gives] * 4


@pytest.mark.parametrize(("name", "backend"), [case for case in CASES if case[0].startswith(("triangle", "pair"))])
def test_under_autocast_it_is_the_reference_in_that_precision(loaded, name, backend):
    operation = loaded(name, backend)
    given = cast(operation.example(9), CPU, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (operation.function(one)(**given) for one in (backend, "reference"))
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, atol=3e-2 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    ("name", "backend"), [case for case in CASES if case[1] != "flash_attn"]
)  # which does it itself
def test_the_package_is_called_with_the_device_of_its_tensors_current(loaded, monkeypatch, name, backend):
    operation, current, called = loaded(name, backend), [], []

    @contextmanager
    def noted(device: torch.device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(f"app.ops.{name}.{operation.backends[backend].module}.current", noted)
    package = sys.modules[operation.backends[backend].modules[0]]
    for key, function in inspect.getmembers(package, inspect.isfunction):
        watched = lambda *args, of=function, **kwargs: called.append(list(current)) or of(*args, **kwargs)  # noqa: E731
        monkeypatch.setattr(package, key, watched)
    operation.function(backend)(**cast(operation.example(3), CPU, torch.float32))
    assert called == [[CPU]]


def call(dtype: torch.dtype, length: int, *widths: int, backward: bool = True) -> Call:
    return Call(NVIDIA, dtype, length, widths, backward)


@pytest.mark.parametrize(
    ("name", "backend", "asked", "told"),
    [
        ("triangle_attention", "trifast", call(torch.float32, 300, 32, 4), None),
        ("triangle_attention", "trifast", call(torch.float32, 300, 24, 4), "width 16, 32, 64 or 128, not 24"),
        ("triangle_attention", "trifast", call(torch.bfloat16, 4096, 32, 4), "counts in 32 bits"),
        ("triangle_attention", "cuequivariance", call(torch.float32, 300, 32, 4, backward=False), None),
        ("triangle_attention", "cuequivariance", call(torch.float32, 300, 32, 4), "in float32 only with TF32"),
        ("triangle_attention", "cuequivariance", call(torch.float32, 300, 64, 4), "up to 32 that 4 divides, not 64"),
        ("triangle_attention", "cuequivariance", call(torch.bfloat16, 300, 64, 4), None),
        ("triangle_attention", "cuequivariance", call(torch.bfloat16, 300, 20, 4), "up to 128 that 8 divides, not 20"),
        ("triangle_attention", "cuequivariance", call(torch.bfloat16, 200, 16, 4), "201 residues or more with heads"),
        ("pair_bias_attention", "cuequivariance", call(torch.float32, 300, 48), "up to 32 that 4 divides, not 48"),
        ("pair_bias_attention", "cuequivariance", call(torch.float32, 300, 32), "in float32 only with TF32"),
        ("pair_bias_attention", "cuequivariance", call(torch.bfloat16, 300, 32), None),
        ("triangle_multiplication", "cuequivariance", call(torch.float32, 300, 128, 128), None),
        ("triangle_multiplication", "cuequivariance", call(torch.float32, 300, 128, 64), "not 128 and 64"),
        ("triangle_multiplication", "cuequivariance", call(torch.float32, 300, 48, 48), "that 32 divides, not 48"),
        ("factorised_attention", "flash_attn", call(torch.float32, 300, 8, 16, 8, 12, 2, 32), "has no float32"),
        ("factorised_attention", "flash_attn", call(torch.bfloat16, 300, 8, 16, 8, 12, 2, 106), "up to 256, not 264"),
        ("factorised_attention", "flash_attn", call(torch.bfloat16, 300, 8, 16, 28, 12, 2, 32), "up to 256, not 273"),
        ("factorised_attention", "flash_attn", call(torch.bfloat16, 300, 8, 16, 8, 12, 2, 32), None),
    ],
)
def test_limits(monkeypatch, name, backend, asked, told):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    reason = HERE[name].backends[backend].refuses(asked)
    assert reason is None if told is None else told in reason


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("triangle_attention", "CUEQ_TRIATTN_FALLBACK_THRESHOLD"),
        ("pair_bias_attention", "CUEQ_TRIATTN_FALLBACK_THRESHOLD"),
        ("triangle_multiplication", "CUEQ_TRIMUL_FALLBACK_THRESHOLD"),
    ],
)
def test_cuequivariance_begins_where_its_variable_says(name, variable):
    assert HERE[name].backends["cuequivariance"].shortest == shortest_in_cuequivariance(variable)


def test_where_cuequivariance_begins_is_read_from_its_variable(monkeypatch):
    monkeypatch.setattr("app.ops.packages.find_spec", lambda module: module)  # it is installed
    monkeypatch.delenv("CUEQ_TRIATTN_FALLBACK_THRESHOLD", raising=False)
    assert shortest_in_cuequivariance("CUEQ_TRIATTN_FALLBACK_THRESHOLD") == 101
    monkeypatch.setenv("CUEQ_TRIATTN_FALLBACK_THRESHOLD", "0")
    assert shortest_in_cuequivariance("CUEQ_TRIATTN_FALLBACK_THRESHOLD") == 1
    monkeypatch.setenv("CUEQ_TRIATTN_FALLBACK_THRESHOLD", "few")
    with pytest.raises(UserError, match="CUEQ_TRIATTN_FALLBACK_THRESHOLD=few is no number of residues"):
        shortest_in_cuequivariance("CUEQ_TRIATTN_FALLBACK_THRESHOLD")
    monkeypatch.setattr("app.ops.packages.find_spec", lambda module: None)  # nothing reads it
    assert shortest_in_cuequivariance("CUEQ_TRIATTN_FALLBACK_THRESHOLD") == 1


def test_what_is_counted_in_32_bits_are_the_heads_of_all_examples():
    operation = HERE["triangle_attention"]
    assert operation.describe(**operation.example(3, batch=2)).batch == 2
    asked = call(torch.bfloat16, 2897, 32, 4)
    assert operation.backends["trifast"].refuses(asked) is None
    assert "too few for 8 heads" in operation.backends["trifast"].refuses(replace(asked, batch=2))


def test_what_installs_a_package_is_an_extra_that_there_is():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for operation in HERE.values():
        for backend in operation.backends.values():
            for package in backend.packages:
                named = re.search(r"'\.\[(\w+)\]'", backend.install)
                assert package == "triton" or any(line.startswith(package + ">=") for line in extras[named[1]])
    flash = HERE["esm_attention"].backends["flash_attn"].install
    assert flash in (ROOT / "README.md").read_text() and flash.endswith("--no-build-isolation")


def test_widened_widths_are_those_that_a_call_tells():
    operation = HERE["factorised_attention"]
    for dtype, expected in [(torch.float32, (16 + 24 + 2 + 1, 16 + 36 + 64)), (torch.bfloat16, (16 + 72 + 2 + 3, 116))]:
        assert widened_widths(operation.describe(**cast(operation.example(3), CPU, dtype))) == expected


def test_triangle_multiplication_is_described_in_the_precision_of_its_products():
    operation = HERE["triangle_multiplication"]
    given = cast(operation.example(3), CPU, torch.float32)
    assert operation.describe(**given).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert operation.describe(**given).dtype == torch.bfloat16


def test_float32_has_a_backward_pass_in_cuequivariance_where_tf32_is_allowed(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert HERE["triangle_attention"].backends["cuequivariance"].refuses(call(torch.float32, 300, 32, 4)) is None


@pytest.mark.parametrize(
    ("name", "asked", "first"),
    [
        ("triangle_attention", call(torch.bfloat16, 128, 32, 4), "cuequivariance"),
        ("triangle_attention", call(torch.bfloat16, 256, 32, 4), "cuequivariance"),
        ("triangle_attention", call(torch.bfloat16, 512, 32, 4), "trifast"),
        ("triangle_attention", call(torch.bfloat16, 512, 32, 4, backward=False), "cuequivariance"),
        ("triangle_attention", call(torch.float32, 256, 32, 4, backward=False), "cuequivariance"),
        ("triangle_attention", call(torch.float32, 256, 32, 4), "torch"),
        ("triangle_multiplication", call(torch.bfloat16, 256, 128, 128, backward=False), "cuequivariance"),
        ("triangle_multiplication", call(torch.bfloat16, 256, 128, 128), "cuequivariance"),
        ("triangle_multiplication", call(torch.float32, 512, 128, 128), "cuequivariance"),
        ("pair_bias_attention", call(torch.bfloat16, 512, 32), "cuequivariance"),
        ("pair_bias_attention", call(torch.float32, 512, 32), "reference"),
        ("pair_bias_attention", call(torch.float32, 512, 32, backward=False), "cuequivariance"),
    ],
)
def test_auto_takes_first_what_was_measured_to_be_faster(name, asked, first):
    *_, last = HERE[name].order(asked)
    assert HERE[name].order(asked)[0] == first
    assert not HERE[name].backends[last].optional  # so that there is always one that serves
