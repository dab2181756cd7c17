"""Optional packages of kernels: what they and their modules are called, what installs them, and what they leave out."""

import os
import warnings
from importlib.util import find_spec

import torch

from app.errors import UserError

CUDA = "12" if (torch.version.cuda or "").startswith("12") else "13"
"""The major version that torch was built with, and by which an extra is called; the newer one where there is none."""

_INSTALL = f"pip install -e '.[cuda{CUDA}]'"

TRIFAST = {"packages": ("trifast",), "modules": ("trifast",), "install": _INSTALL}

CUEQUIVARIANCE = {
    "packages": ("cuequivariance-torch", f"cuequivariance-ops-torch-cu{CUDA}"),
    "modules": ("cuequivariance_torch", "cuequivariance_ops_torch"),
    "install": _INSTALL,
}

FLASH_ATTN = {
    "packages": ("flash-attn",),
    "modules": ("flash_attn",),
    "install": "pip install -e '.[flash]' --no-build-isolation",
}

TRITON = {"packages": ("triton",), "modules": ("triton",), "install": "pip's torch for Linux brings it"}


def shortest_in_cuequivariance(variable: str) -> int:
    """Residues from which on its kernel runs: up to the number in this variable it quietly runs plain PyTorch.

    Raises UserError for what is no number.
    """
    told = os.environ.get(variable, "100")
    try:
        return int(told) + 1
    except ValueError:
        if find_spec("cuequivariance_torch") is None:
            return 1  # nothing reads it here
        raise UserError(f"{variable}={told} is no number of residues: set one, or unset it") from None


def hush_cuequivariance() -> None:
    """No advice on how to call it better: it is of no use to who only chose the kernel."""
    for message in (r"\s*=+\s*cuequivariance triangle_attention: NOT using", ".* kernel expects bias to be "):
        warnings.filterwarnings("ignore", message, UserWarning)
