"""The environment that kernels find: variables that libraries read when they are imported, and TF32.

Set before anything imports torch, of which this file imports nothing until then.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

_NO_FALLBACK = "0"  # the backend that was chosen is the one that runs, however short the chain

DEAD = ("CUQUI_ENABLE_BF16", "CUEQ_DEFAULT_CONFIG", "CUEQ_DISABLE_AOT_TUNING")
"""Variables that other projects set for cuEquivariance, and that it does not read; nor any that begins with CUEQUI_."""

READERS = {"CUEQ_": "cuequivariance_torch", "TRIFAST_": "trifast"}
"""Optional modules, by how the names of the variables begin that they alone read."""


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


def _number(value: str) -> str:
    if not value.isdecimal():
        raise ValueError(f"{value!r} is no number of residues: give 0 or more, or null")
    return value


_Switch = Annotated[Literal["0", "1"], BeforeValidator(_as_text)] | None
_Level = Annotated[Literal["0", "1", "2", "3", "4"], BeforeValidator(_as_text)] | None
_Residues = Annotated[str, BeforeValidator(_as_text), AfterValidator(_number)] | None
_Text = Annotated[str, StringConstraints(min_length=1)] | None


class Variables(BaseModel):
    """Variables that exist, and that a library reads when it is loaded; None leaves one to the library."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    PYTORCH_ENABLE_MPS_FALLBACK: _Switch = Field("1", description="on a Mac, run on the CPU what the GPU backend lacks")
    PYTORCH_CUDA_ALLOC_CONF: _Text = None
    NVIDIA_TF32_OVERRIDE: _Switch = Field(None, description="0 forbids TF32 to every library")
    CUEQ_TRIATTN_FALLBACK_THRESHOLD: _Residues = _NO_FALLBACK
    CUEQ_TRIMUL_FALLBACK_THRESHOLD: _Residues = _NO_FALLBACK
    CUEQ_ATTENTION_PAIR_BIAS_FALLBACK_THRESHOLD: _Residues = _NO_FALLBACK
    CUEQ_TORCH_COMPILE: _Level = None
    CUEQ_TRIATTN_VALIDATE_KV_LENGTHS: _Switch = None
    CUEQ_TRITON_TUNING: Literal["AOT", "ONDEMAND"] | None = None
    CUEQ_TRITON_CACHE_DIR: _Text = None
    CUEQ_TRITON_IGNORE_EXISTING_CACHE: _Switch = None
    TRIFAST_FORCE_TUNE: _Switch = None
    TRITON_CACHE_DIR: _Text = None


class EnvironmentSettings(BaseModel):
    """The section `environment` of a config. It belongs to the machine: no checkpoint keeps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "highest", description="of float32 products; high is TF32 on NVIDIA GPUs"
    )
    variables: Variables = Variables()


DEFAULTS = Variables().model_dump()

_origin: dict[str, str] = {}  # of each variable that was set here


def prepare(settings: EnvironmentSettings | None = None) -> None:
    """Set what the shell has not. To be called before anything imports torch; a later call changes what the first set,
    as far as a library that is loaded already can still be reached."""
    late = "torch" in sys.modules
    for name, value in (settings or EnvironmentSettings()).variables.model_dump().items():
        if name in os.environ and name not in _origin:
            continue  # the shell's
        if value is None:
            if _origin.pop(name, None):
                del os.environ[name]
        elif os.environ.get(name) != value:
            os.environ[name] = value
            _origin[name] = "set, but after torch was imported" if late else "set"


def of_command_line(arguments: Sequence[str]) -> EnvironmentSettings:
    """The section `environment` of a command line, read before the rest so that torch can wait.

    Raises UserError as composing does, as far as this section is concerned.
    """
    from app.config.compose import compose
    from app.config.validate import parse

    own = [text for text in arguments if text.partition("=")[0].split(".")[0] == "environment"]
    return parse(EnvironmentSettings, compose("train", own, partial=True)["environment"], "environment")


def apply(settings: EnvironmentSettings) -> None:
    """What torch is told once it is there: the precision of float32 products."""
    import torch

    torch.set_float32_matmul_precision(settings.matmul_precision)
    torch.backends.cudnn.allow_tf32 = settings.matmul_precision != "highest"


def report() -> dict[str, str]:
    """Each variable that has a value, with where that came from, and torch's precision, for the log.

    `{"PYTORCH_ENABLE_MPS_FALLBACK": "1 (set)", "matmul_precision": "highest"}`. Defaults for cuEquivariance are left
    out where it is not installed.
    """
    found = {
        name: f"{os.environ[name]} ({_origin.get(name, 'shell')})"
        for name in Variables.model_fields
        if name in os.environ and (_is_read(name) or os.environ[name] != DEFAULTS[name])
    }
    if "torch" in sys.modules:
        found["matmul_precision"] = sys.modules["torch"].get_float32_matmul_precision()
    return found


def in_words() -> str:
    """The report as one line."""
    return ", ".join(f"{name}={value}" for name, value in report().items())


def _reader(name: str) -> str | None:
    """The optional module that reads a variable; None where torch or Triton does."""
    return next((module for prefix, module in READERS.items() if name.startswith(prefix)), None)


def _is_read(name: str) -> bool:
    module = _reader(name)
    return module is None or importlib.util.find_spec(module) is not None


def faults(settings: EnvironmentSettings) -> list[str]:
    """What is not as the settings want it, and variables that do nothing, one line each."""
    import torch

    said = []
    for name, value in settings.variables.model_dump().items():
        now = os.environ.get(name)
        if value is not None and now != value and name not in _origin and value != DEFAULTS[name]:
            said.append(f"{name}={value} has no effect: the shell has {now}")
        elif now != value and name in _origin:
            said.append(f"{name} is {now}, not {value}: something changed it after it was set")
        elif _origin.get(name, "set") != "set" and _is_read(name):
            said.append(f"{name}={now} was set after torch was imported, which may have been too late")
    if (precision := torch.get_float32_matmul_precision()) != settings.matmul_precision:
        said.append(f"float32 products are computed with precision {precision}, not {settings.matmul_precision}")
    for name, value in sorted(os.environ.items()):
        if name in DEAD or name.startswith("CUEQUI_"):
            said.append(f"{name} is set, and nothing reads it")
        elif not _is_read(name) and value != DEFAULTS.get(name):
            said.append(f"{name} is set, and nothing reads it: {_reader(name)} is not installed")
    return said
