"""Optional packages of kernels: what they and their modules are called, what installs them, and what they leave out."""

import os
import warnings

import torch

from app.errors import UserError

_CUDA = (torch.version.cuda or "13").partition(".")[0]
_INSTALL = "pip install -e '.[cuda13]', or '.[cuda12]' by the CUDA version of torch"

TRIFAST = {"packages": ("trifast",), "modules": ("trifast",), "install": _INSTALL}

CUEQUIVARIANCE = {
    "packages": ("cuequivariance-torch", f"cuequivariance-ops-torch-cu{_CUDA}"),
    "modules": ("cuequivariance_torch", "cuequivariance_ops_torch"),
    "install": _INSTALL,
}

FLASH_ATTN = {"packages": ("flash-attn",), "modules": ("flash_attn",), "install": "pip install -e '.[flash]'"}


def shortest_in_cuequivariance(variable: str) -> int:
    """Residues from which on its kernel runs: up to the number in this variable it quietly runs plain PyTorch.

    Raises UserError for what is no number.
    """
    told = os.environ.get(variable, "100")
    try:
        return int(told) + 1
    except ValueError:
        raise UserError(f"{variable}={told} is no number of residues: set one, or unset it") from None


def hush_cuequivariance() -> None:
    """No advice on how to call it better: it is of no use to who only chose the kernel."""
    for message in (r"\s*=+\s*cuequivariance triangle_attention: NOT using", ".* kernel expects bias to be "):
        warnings.filterwarnings("ignore", message, UserWarning)
