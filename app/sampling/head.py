"""What a manifest says of the whole run: what was asked for, and what it is made with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app import environment
from app.devices import choose_dtype
from app.ops import account
from app.sampling.given import Skipped
from app.sampling.manifest import FORMAT, sha256_of
from app.sampling.prepared import Prepared
from app.sampling.request import Request
from app.sampling.settings import SamplerSettings


def head(
    request: Request,
    sampler: SamplerSettings,
    ready: Prepared,
    devices: int,
    inputs: Mapping[str, str],
    skipped: Sequence[Skipped],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """inputs: the sha256 of what was read, by file. devices: processes that make designs. warnings: what is to
    be known of all designs."""
    return {
        "format": FORMAT,
        "task": request.task.value,
        "seed": request.seed,
        "settings": request.model_dump(mode="json") | {"sampler": sampler.model_dump(mode="json")},
        "versions": account.versions(),
        "environment": environment.report(),
        "checkpoint": request.ckpt and {"path": str(request.ckpt), "sha256": sha256_of(request.ckpt)},
        "inputs": dict(inputs),
        "language_model": _language_of(ready.model, ready),
        "warnings": list(warnings),
        "device": ready.device.type,
        "devices": devices,
        "precision": str(ready.dtype).removeprefix("torch."),
        "skipped": [{"input": one.input, "reason": one.reason} for one in skipped],
    }


def _language_of(model: Callable, ready: Prepared) -> dict[str, str] | None:
    """Of a model that reads one, the language model's name and sha256, who runs it, and in what precision."""
    esm = getattr(model, "esm", None)
    if esm is None:
        return None
    settings = esm.language.settings
    precision = str(choose_dtype(settings.precision, ready.device)).removeprefix("torch.")
    return esm.identity() | {"backend": settings.backend, "precision": precision}
