"""What a run keeps of its kernels: which were asked for, which served, and what they rest on."""

import platform
from importlib import metadata
from typing import Any

import torch

from app import __version__
from app.ops import select

_BASE = ("faesm", "numpy", "transformers")


def kernels() -> dict[str, Any]:
    """`asked_for`, a backend or auto by operation; `took`, the backends that have served since `select.use`, by
    operation; and the precision of float32 products."""
    took: dict[str, list[str]] = {}
    for choice in select.choices():
        if choice.backend not in took.setdefault(choice.operation, []):
            took[choice.operation].append(choice.backend)
    precision = torch.get_float32_matmul_precision()
    return {"asked_for": select.settings().model_dump(), "took": took, "matmul_precision": precision}


def packages() -> dict[str, str | None]:
    """Versions of what kernels and language models rest on; None: not installed. Imports none of them."""
    backends = [backend for operation in select.operations().values() for backend in operation.backends.values()]
    return {name: _version(name) for name in sorted({*_BASE, *(name for one in backends for name in one.packages)})}


def versions() -> dict[str, str]:
    """Trunkline's, Python's, torch's, and those of `packages` that are installed."""
    found = {"trunkline": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    return found | {name: version for name, version in packages().items() if version is not None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions_in_words() -> str:
    """The versions as one line."""
    return ", ".join(f"{name} {version}" for name, version in versions().items())
