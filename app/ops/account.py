"""What a run keeps of its kernels: which were asked for, which served, and what they rest on."""

import platform
from importlib import metadata
from typing import Any

import torch

from app import __version__
from app.ops import select

_OF_LANGUAGE_MODELS = ("faesm", "transformers")


def kernels() -> dict[str, Any]:
    """`asked_for`, a backend or auto by operation; `took`, the backends that have served since `select.use`, by
    operation; and the precision of float32 products."""
    took: dict[str, list[str]] = {}
    for choice in select.choices():
        if choice.backend not in took.setdefault(choice.operation, []):
            took[choice.operation].append(choice.backend)
    precision = torch.get_float32_matmul_precision()
    return {"asked_for": select.settings().model_dump(), "took": took, "matmul_precision": precision}


def versions() -> dict[str, str]:
    """Trunkline's, Python's, torch's, and those of the packages of kernels that are installed. Imports none of them."""
    found = {"trunkline": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    backends = [backend for operation in select.operations().values() for backend in operation.backends.values()]
    for name in sorted({name for backend in backends for name in backend.packages} | {*_OF_LANGUAGE_MODELS}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def versions_in_words() -> str:
    """The versions as one line."""
    return ", ".join(f"{name} {version}" for name, version in versions().items())
