"""`python -m app doctor`, as typed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from app.__main__ import cli
from app.bench import doctor
from app.bench.table import WIDTH
from app.errors import UserError
from app.ops import select
from app.ops.backend import Backend
from tests.bench.here import Here

ROOT = Path(__file__).resolve().parents[2]
NAME = "triangle_attention"


def run(*arguments: str):
    return CliRunner().invoke(cli, ["doctor", "--device", "cpu", "--length", "4", *arguments], catch_exceptions=True)


@pytest.fixture
def one_operation(monkeypatch):
    operation = select.operations()[NAME]
    monkeypatch.setattr(doctor, "Apart", Here)
    monkeypatch.setattr(select, "operations", lambda: {NAME: operation})
    return operation


def test_the_table_and_the_exit_status_where_all_is_well(one_operation):
    result = run()
    assert result.exit_code == 0
    for words in ("machine: ", "torch: ", "packages: ", "environment: default", NAME, "N=4", "ok", "everywhere"):
        assert words in result.stdout
    assert result.stdout.count("bfloat16  ok") == 2
    assert max(map(len, result.stdout.splitlines()[8:])) <= WIDTH


def test_where_training_differs_the_table_says_so(one_operation, monkeypatch):
    reference = one_operation.function("reference")
    monkeypatch.setitem(one_operation.backends, "fast", Backend("fast", "reference", backward=False))
    monkeypatch.setitem(one_operation._functions, "fast", reference)
    monkeypatch.setattr(one_operation, "order", lambda call: ("fast", "torch"))
    told = run().stdout
    assert told.count("inference everywhere") == 2 and told.count("training everywhere") == 2


def test_the_environment_is_that_of_a_recipe(one_operation):
    before = torch.get_float32_matmul_precision()
    try:
        assert "environment: tf32, " in run("--environment", "tf32").stdout
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    error = run("--environment", "nonsense").exception
    assert isinstance(error, UserError) and "default" in str(error) and "tf32" in str(error)


def test_a_wrong_answer_exits_with_one(one_operation, monkeypatch):
    right = one_operation.function("reference")
    monkeypatch.setitem(one_operation.backends, "wrong", Backend("wrong", "reference"))
    monkeypatch.setitem(one_operation._functions, "wrong", lambda **given: right(**given) + 1)
    for arguments in ([], ["--json"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "values off by" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_tried_before_an_interruption_is_shown(one_operation, monkeypatch, number):
    real, before = doctor._row, signal.getsignal(signal.SIGTERM)

    def interrupted(operation, backend, *rest):
        if backend.name == "torch":
            signal.raise_signal(number)
        return real(operation, backend, *rest)

    monkeypatch.setattr(doctor, "_row", interrupted)
    try:
        result = run()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.exit_code == 130 and "interrupted" in result.stdout
    assert f"{NAME} " in result.stdout and "reference" in result.stdout


def test_an_unknown_device_is_one_line():
    error = run("--device", "tpu").exception
    assert isinstance(error, UserError) and "--device=tpu" in str(error)


@pytest.mark.slow
def test_it_runs_where_only_what_it_needs_is_installed(tmp_path):
    """The whole command, on all operations, without what only structure files, training or language models need."""
    for name in ("biotite", "faesm", "transformers", "lightning"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not installed here')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "app", "doctor", "--json", "--device", "cpu", "--length", "8"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    fields = {"op", "backend", "package", "version", "status", "reason", "max_error", "max_grad_error", "seconds"}
    assert all(row.keys() == fields | {"chosen_by_auto", "dtypes"} for row in rows)
    found = {(row["op"], row["backend"]): row for row in rows}
    for name, operation in select.operations().items():
        assert {(name, backend) for backend in operation.backends} <= found.keys()
        assert found[name, "reference"]["status"] == "ok", found[name, "reference"]
        assert any("8" not in row["seconds"] or row["seconds"]["8"] for row in rows)
        taken = [found[name, backend]["chosen_by_auto"] for backend in operation.backends]
        for use in ("inference", "training"):
            assert {"float32": [8], "bfloat16": [8]} in [one.get(use) for one in taken]
    assert {row["status"] for row in rows} <= {"ok", "unavailable", "not here"}
