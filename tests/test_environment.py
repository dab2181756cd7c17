"""Each case in an interpreter of its own: what counts is the state before torch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "PYTORCH_ENABLE_MPS_FALLBACK"


def printed(code: str, **variables: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != NAME} | variables
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_it_imports_no_torch():
    code = "import sys; from app import environment; environment.prepare(); print('torch' in sys.modules)"
    assert printed(code) == "False"


@pytest.mark.parametrize(("variables", "expected"), [({}, "1 (default)"), ({NAME: "0"}, "0 (shell)")])
def test_the_shell_wins(variables, expected):
    code = f"from app import environment as e; e.prepare(); e.prepare(); print(e.report()['{NAME}'])"
    assert printed(code, **variables) == expected


def test_too_late_is_told():
    code = f"import torch; from app import environment as e; e.prepare(); print(e.report()['{NAME}'])"
    assert "after torch" in printed(code)
