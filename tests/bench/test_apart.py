"""A process of its own: results and errors come back, a crash is told and forgotten."""

import operator
import os

import pytest

from app.bench.apart import Apart, Failed, poisons
from app.bench.cases import checked
from app.errors import UserError


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
