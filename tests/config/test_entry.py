import subprocess
import sys

import pytest

from app.config.entry import run
from app.errors import UserError


def status(main, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        run(main)
    return ended.value.code


def test_arguments_go_in_and_the_status_comes_out(monkeypatch):
    seen = []
    assert status(seen.extend, monkeypatch, "seed=1", "out=a b") is None
    assert seen == ["seed=1", "out=a b"]
    assert status(lambda arguments: 3, monkeypatch) == 3


def test_a_users_error_is_one_line_on_stderr(monkeypatch, capsys):
    def main(arguments):
        raise UserError("a  b.pdb is\nempty: give another")

    assert status(main, monkeypatch) == 2
    assert capsys.readouterr() == ("", "error: a  b.pdb is empty: give another\n")


def test_interruption_and_defects(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    def defect(arguments):
        raise ZeroDivisionError

    assert status(interrupted, monkeypatch) == 130
    with pytest.raises(ZeroDivisionError):
        run(defect)


def test_a_library_that_ends_the_process_leaves_a_trace():
    script = """
import ctypes
from app.config.entry import run
def deep_in_a_kernel(arguments):
    ctypes.CDLL(None).abort()
run(deep_in_a_kernel)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode < 0
    assert "Fatal Python error: Aborted" in ended.stderr and "deep_in_a_kernel" in ended.stderr
