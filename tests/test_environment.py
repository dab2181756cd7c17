"""Each case in an interpreter of its own: what counts is the state before torch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.environment import Variables

NAME = "PYTORCH_ENABLE_MPS_FALLBACK"


def printed(code: str, **variables: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in Variables.model_fields} | variables
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_it_imports_no_torch():
    code = "import sys; from app import environment; environment.prepare(); print('torch' in sys.modules)"
    assert printed(code) == "False"


@pytest.mark.parametrize(("variables", "expected"), [({}, "1 (set)"), ({NAME: "0"}, "0 (shell)")])
def test_the_shell_wins(variables, expected):
    code = f"from app import environment as e; e.prepare(); e.prepare(); print(e.report()['{NAME}'])"
    assert printed(code, **variables) == expected


def test_too_late_is_told():
    code = f"import torch; from app import environment as e; e.prepare(); print(e.report()['{NAME}'])"
    assert "after torch" in printed(code)


def test_a_config_gives_the_values_and_null_leaves_a_variable_alone():
    code = (
        "from app import environment as e; "
        "s = e.of_command_line(['recipe=tiny', 'environment.variables.CUEQ_TRITON_TUNING=AOT', 'environment.variables."
        "CUEQ_TRIMUL_FALLBACK_THRESHOLD=null', 'environment.variables.CUEQ_TRIATTN_FALLBACK_THRESHOLD=7']); "
        "e.prepare(); e.prepare(s); import os, sys; "
        "print([os.environ.get(n) for n in ('CUEQ_TRITON_TUNING', 'CUEQ_TRIMUL_FALLBACK_THRESHOLD',"
        " 'CUEQ_TRIATTN_FALLBACK_THRESHOLD')], 'torch' in sys.modules)"
    )
    assert printed(code) == "['AOT', None, '7'] False"
    assert printed(code, CUEQ_TRITON_TUNING="ONDEMAND") == "['ONDEMAND', None, '7'] False"


@pytest.mark.parametrize(("environment", "precision"), [((), "highest"), (("environment=tf32",), "high")])
def test_the_precision_of_float32_products(environment, precision):
    code = (
        f"from app import environment as e; s = e.of_command_line({list(environment)}); e.prepare(s); e.apply(s); "
        "print(e.report()['matmul_precision'], e.faults(s))"
    )
    assert printed(code) == f"{precision} []"


def test_what_nothing_reads_and_what_was_undone_is_told():
    code = (
        "from app import environment as e; import os, torch; s = e.EnvironmentSettings(); e.prepare(s); e.apply(s); "
        "os.environ['CUEQ_TRIMUL_FALLBACK_THRESHOLD'] = '5'; torch.set_float32_matmul_precision('medium'); "
        "print('; '.join(e.faults(s)))"
    )
    said = printed(code, CUEQUI_X="1", CUEQ_DEFAULT_CONFIG="1")
    expected = (
        "CUEQ_TRIMUL_FALLBACK_THRESHOLD is 5, not 0",
        "precision medium, not highest",
        "CUEQUI_X is set, and nothing reads it",
        "CUEQ_DEFAULT_CONFIG is set, and nothing reads it",
    )
    for fault in expected:
        assert fault in said


def test_the_recipes_say_what_the_settings_do():
    from app import environment
    from app.config.compose import compose

    for root in ("train", "infer"):
        assert (
            environment.EnvironmentSettings(**compose(root, [], partial=True)["environment"])
            == environment.EnvironmentSettings()
        )
