"""Each case in an interpreter of its own: what counts is the state before torch is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import environment
from app.environment import Variables
from app.errors import UserError

NAME = "PYTORCH_ENABLE_MPS_FALLBACK"
TWO_VALUES = {
    "PYTORCH_ENABLE_MPS_FALLBACK": ("0", "1"),
    "PYTORCH_CUDA_ALLOC_CONF": ("expandable_segments:True", "expandable_segments:False"),
    "NVIDIA_TF32_OVERRIDE": ("0", "1"),
    "CUEQ_TRIATTN_FALLBACK_THRESHOLD": ("50", "0"),
    "CUEQ_TRIMUL_FALLBACK_THRESHOLD": ("60", "0"),
    "CUEQ_ATTENTION_PAIR_BIAS_FALLBACK_THRESHOLD": ("70", "0"),
    "CUEQ_TORCH_COMPILE": ("4", "2"),
    "CUEQ_TRIATTN_VALIDATE_KV_LENGTHS": ("1", "0"),
    "CUEQ_TRITON_TUNING": ("AOT", "ONDEMAND"),
    "CUEQ_TRITON_CACHE_DIR": ("/some where", "/else"),
    "CUEQ_TRITON_IGNORE_EXISTING_CACHE": ("1", "0"),
    "TRIFAST_FORCE_TUNE": ("1", "0"),
    "TRITON_CACHE_DIR": ("/some where", "/else"),
}
PREPARED = """
import os, sys
from app import environment as e
s = e.of_command_line(sys.argv[1:])
e.prepare(s)
print([os.environ.get(name) for name in sorted(e.DEFAULTS)], sorted(e._origin), 'torch' in sys.modules)
"""


def printed(code: str, *arguments: str, **variables: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in Variables.model_fields} | variables
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=True
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


def test_too_late_is_told_of_what_something_reads():
    code = "import torch; from app import environment as e; e.prepare(); print(e.faults(e.EnvironmentSettings()))"
    said = printed(code)
    assert f"{NAME}=1 was set after torch was imported" in said
    assert ("CUEQ_" in said) == (importlib.util.find_spec("cuequivariance_torch") is not None)


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


def test_every_variable_is_set_as_typed_where_the_shell_says_nothing_and_there_alone():
    assert TWO_VALUES.keys() == Variables.model_fields.keys()
    names = sorted(TWO_VALUES)
    typed = [f"environment.variables.{name}={TWO_VALUES[name][0]}" for name in names]
    assert printed(PREPARED, *typed) == f"{[TWO_VALUES[name][0] for name in names]} {names} False"
    shell = {name: TWO_VALUES[name][1] for name in names}
    assert printed(PREPARED, *typed, **shell) == f"{[shell[name] for name in names]} [] False"
    empty = dict.fromkeys(names, "")
    assert printed(PREPARED, *typed, **empty) == f"{[''] * len(names)} [] False"


def test_what_the_shell_overrules_is_told():
    code = (
        "import sys; from app import environment as e; s = e.of_command_line(sys.argv[1:]); e.prepare(s); e.apply(s); "
        "print('; '.join(e.faults(s)))"
    )
    said = printed(code, "environment.variables.NVIDIA_TF32_OVERRIDE=1", NVIDIA_TF32_OVERRIDE="0")
    assert said == "NVIDIA_TF32_OVERRIDE=1 has no effect: the shell has 0"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PYTORCH_ENABLE_MPS_FALLBACK", "true", "'True': wanted '0' or '1'"),
        ("NVIDIA_TF32_OVERRIDE", "2", "'2': wanted '0' or '1'"),
        ("CUEQ_TRIATTN_FALLBACK_THRESHOLD", "few", "'few' is no number of residues: give 0 or more, or null"),
        ("CUEQ_TRIMUL_FALLBACK_THRESHOLD", "-1", "'-1' is no number of residues"),
        ("CUEQ_ATTENTION_PAIR_BIAS_FALLBACK_THRESHOLD", "1.5", "'1.5' is no number of residues"),
        ("CUEQ_TORCH_COMPILE", "5", "'5': wanted '0', '1', '2', '3' or '4'"),
        ("CUEQ_TRIATTN_VALIDATE_KV_LENGTHS", "yes", "'yes': wanted '0' or '1'"),
        ("CUEQ_TRITON_TUNING", "aot", "'aot': wanted 'AOT' or 'ONDEMAND'"),
        ("CUEQ_TRITON_IGNORE_EXISTING_CACHE", "-1", "'-1': wanted '0' or '1'"),
        ("TRIFAST_FORCE_TUNE", "[1]", "wanted '0' or '1'"),
        ("TRITON_CACHE_DIR", "''", "at least 1 character"),
        ("PYTORCH_CUDA_ALLOC_CONF", "{a: 1}", "wanted a valid string"),
    ],
)
def test_values_that_mean_nothing_are_refused(name, value, said):
    with pytest.raises(UserError) as error:
        environment.of_command_line([f"environment.variables.{name}={value}"])
    assert str(error.value).startswith(f"environment.variables.{name}") and said in str(error.value)


@pytest.mark.parametrize(("typed", "precision"), [((), "highest"), (("environment=tf32",), "high")])
def test_the_typed_float32_products(typed, precision):
    code = (
        f"from app import environment as e; s = e.of_command_line({list(typed)}); e.prepare(s); e.apply(s); "
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


@pytest.mark.parametrize(
    ("name", "module"), [("CUEQ_TRITON_TUNING", "cuequivariance_torch"), ("TRIFAST_FORCE_TUNE", "trifast")]
)
@pytest.mark.parametrize("installed", [False, True])
def test_a_variable_of_a_package_that_is_missing_is_told(monkeypatch, name, module, installed):
    monkeypatch.setattr("importlib.util.find_spec", lambda found: object() if installed or found != module else None)
    fault = f"{name} is set, and nothing reads it: {module} is not installed"
    environment.prepare()
    assert fault not in environment.faults(environment.EnvironmentSettings())
    monkeypatch.setenv(name, TWO_VALUES[name][0])
    assert (fault in environment.faults(environment.EnvironmentSettings())) != installed


def test_the_recipes_say_what_the_settings_do():
    from app.config.compose import compose

    for root in ("train", "infer"):
        assert (
            environment.EnvironmentSettings(**compose(root, [], partial=True)["environment"])
            == environment.EnvironmentSettings()
        )
