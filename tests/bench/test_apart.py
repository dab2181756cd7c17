"""A process of its own: results and errors come back, a crash is told and forgotten."""

import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from app.bench.apart import PRELOADED, Apart, Failed, poisons
from app.bench.cases import checked
from app.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_calls_share_a_process_that_is_not_this_one():
    with Apart() as apart:
        assert apart(operator.add, 1, 2) == 3
        assert apart(os.getpid) == apart(os.getpid) != os.getpid()


def test_errors_come_in_words_and_those_of_the_user_as_they_are():
    with Apart() as apart:
        with pytest.raises(Failed, match="ZeroDivisionError: division by zero"):
            apart(operator.truediv, 1, 0)
        with pytest.raises(UserError, match="the cases are"):
            apart(checked, "nonsense")


def test_a_crash_takes_only_its_own_process():
    with Apart() as apart:
        with pytest.raises(Failed, match="crashed"):
            apart(os.abort)
        assert apart(operator.add, 1, 2) == 3


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.1, 1.0, 3.0, 8.0])
def test_ctrl_c_while_it_starts_is_ctrl_c(after):
    """A terminal sends it to all processes. The server that imports everything takes some seconds."""
    code = """
import time
from app.bench.apart import Apart
try:
    with Apart() as apart:
        print("starts", flush=True)
        apart(time.sleep, 60)
except KeyboardInterrupt:
    print("interrupted")
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True, **pipes) as process:
        assert process.stdout.readline() == "starts\n"
        time.sleep(after)
        os.killpg(process.pid, signal.SIGINT)
        told, errors = process.communicate(timeout=50)
    assert (told, errors) == ("interrupted\n", "")


def fail_as_a_gpu_does() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_gpus_error_ends_its_process():
    with Apart() as apart:
        before = apart(os.getpid)
        with pytest.raises(Failed, match="illegal memory access"):
            apart(fail_as_a_gpu_does)
        assert apart(os.getpid) != before


def test_running_out_of_memory_does_not():
    assert not poisons(RuntimeError("CUDA error: out of memory"))
    assert not poisons(ValueError("too long"))
    assert poisons(RuntimeError("Triton Error [CUDA]: misaligned address"))


def test_products_are_as_precise_as_here(monkeypatch):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with Apart() as apart:
            assert apart(torch.get_float32_matmul_precision) == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_nothing_that_is_imported_before_the_fork_looks_for_a_gpu():
    """A process forked after that could not use it."""
    code = f"""
import importlib, torch
def forbidden(*_): raise AssertionError("touches CUDA")
for name in ("is_available", "device_count", "init", "_lazy_init", "get_device_properties", "get_device_capability"):
    setattr(torch.cuda, name, forbidden)
for module in {PRELOADED}: importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is forked")
def test_where_a_fork_cannot_use_the_gpu_one_is_spawned(monkeypatch):
    usable = [False, True]
    monkeypatch.setattr(Apart, "_can_use_a_gpu", lambda self: self._connection.recv() and usable.pop(0))
    with Apart() as apart:
        assert apart(operator.add, 1, 2) == 3
        assert type(apart._process).__name__ == "SpawnProcess"
    usable = [False, False]
    with Apart() as apart, pytest.raises(Failed, match="no process could be started"):
        apart(operator.add, 1, 2)


def test_words_and_a_gpu_that_answers_nothing_tell_that_a_process_is_lost(monkeypatch):
    assert poisons(RuntimeError("CUDA driver error: an illegal memory access was encountered"))
    assert not poisons(RuntimeError("cuDNN status: EXECUTION_FAILED"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert not poisons(RuntimeError("cuDNN status: EXECUTION_FAILED"))

    def lost():
        raise RuntimeError("unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert poisons(RuntimeError("cuDNN status: EXECUTION_FAILED"))
    assert not poisons(RuntimeError("Triton Error [CUDA]: out of memory"))
