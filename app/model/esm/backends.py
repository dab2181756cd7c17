"""Who runs the language model: FAPLM (the package faesm) or Hugging Face's transformers. Imported when chosen.

Both make the same modules with the same names of weights. Neither loads anything: weights are filled in by us. In
FAPLM's layers the attention is our operation, chosen by `kernels.esm_attention`, and no work is done on padding.
"""

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType

import torch
from packaging.version import Version
from torch import Tensor, nn

from app.config.keys import one_line
from app.errors import UserError
from app.model.esm import attention
from app.model.esm.folder import NAME, EsmConfig, EsmFolder, config_of
from app.model.esm.settings import WHERE, EsmSize

BACKEND = f"{WHERE}.backend"
_MODULES = {"faplm": "faesm.esm", "transformers": "transformers.models.esm.modeling_esm"}

FAPLM_RUNS_WITH = Version("4.30.2"), Version("4.53.3")
"""Versions of transformers, first and last; later ones moved what faesm 0.1.1 imports."""

_ROTARY_BASE = 10_000.0


def refuse_absent(backend: str) -> None:
    """Raises UserError where the backend is not installed, of a version that does not fit, or cannot be imported."""
    _module(backend)


def build(
    backend: str, folder: EsmFolder, weights: dict[str, Tensor], device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """The language model, in eval mode and frozen, its weights in `dtype` on `device`. Raises UserError as `fitted`."""
    model = fitted(backend, folder, weights, device, dtype).to_empty(device=device)
    _fill(model, weights)
    return model


def fitted(
    backend: str, folder: EsmFolder, weights: dict[str, Tensor], device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """The language model that `build` fills, without numbers still (on "meta"): the weights have been found to fit it.

    Raises UserError as `refuse_absent` does, and for weights that are missing or of another shape.
    """
    with torch.device("meta"):
        model = _made(backend, folder.config)
    for name, parameter in model.named_parameters():
        if name not in weights or weights[name].shape != parameter.shape:
            raise UserError(f"{NAME}={folder.path}: its weights lack {name} {list(parameter.shape)}: fetch it again")
    return model.to(dtype).eval().requires_grad_(False)


def outlined(backend: str, size: EsmSize, dtype: torch.dtype) -> nn.Module:
    """A language model of that size as it is made, its weights not loaded. Raises UserError as `refuse_absent` does."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # where tensors have no numbers, a module cannot be cast
    try:
        return _made(backend, config_of(size)).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def _made(backend: str, config: EsmConfig) -> nn.Module:
    module = _module(backend)
    with _quiet():
        given = importlib.import_module("transformers").EsmConfig(**_arguments(config))
        given.use_fa = False
        make = module.FAEsmModel if backend == "faplm" else module.EsmModel
        model = make(given, add_pooling_layer=False)
    model.contact_head = None
    if backend == "faplm":
        attention.take_over(model.encoder.layer)
    return model


def _arguments(config: EsmConfig) -> dict:
    """For the library's configuration: no dropout, no rescaling of masked sequences (see `embedding`), and the one
    implementation of attention that gives maps."""
    own = config.model_dump(exclude={"model_type", "token_dropout"})
    ours = {"attn_implementation": "eager", "token_dropout": False}
    return own | ours | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
    for module in model.modules():
        if getattr(module, "inv_freq", None) is not None:  # float32 whatever the weights are: positions are large
            place = torch.arange(len(module.inv_freq), dtype=torch.float32) / len(module.inv_freq)
            module.inv_freq = (_ROTARY_BASE**-place).to(module.inv_freq.device)


def _module(backend: str) -> ModuleType:
    """The backend's module of ESM. Raises UserError."""
    wanted = {"faplm": ["faesm", "transformers"], "transformers": ["transformers"]}[backend]
    installed = {name: _version(name) for name in wanted}
    if lacking := [name for name, version in installed.items() if version is None]:
        cure = "'transformers>=4.30.2,<4.54' faesm==0.1.1"
        raise UserError(f"{BACKEND}={backend}: {' and '.join(lacking)} not installed: pip install {cure}")
    first, last = FAPLM_RUNS_WITH
    if backend == "faplm" and not first <= installed["transformers"] <= last:
        raise UserError(
            f"{BACKEND}=faplm: FAPLM runs with transformers {first} to {last}, installed is"
            f" {installed['transformers']}: pip install 'transformers>=4.30.2,<4.54', or set {BACKEND}=transformers"
        )
    try:
        with _quiet(), _hidden_flash_attention():
            return importlib.import_module(_MODULES[backend])
    except Exception as error:
        other = f", or set {BACKEND}=transformers" if backend == "faplm" else ""
        raise UserError(
            f"{BACKEND}={backend}: cannot be imported ({one_line(error)[:120]}): mend that package{other}"
        ) from None


def _version(package: str) -> Version | None:
    try:
        return Version(metadata.version(package))
    except metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Packages greet and warn when they are imported and built; neither is for the user of this one."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _hidden_flash_attention() -> Iterator[None]:
    """faesm must not find flash-attn, of which it has no use here: it would ask for a GPU when imported."""
    found = sys.modules.get("flash_attn")
    sys.modules["flash_attn"] = None  # type: ignore[assignment] - an import of it now fails
    try:
        yield
    finally:
        del sys.modules["flash_attn"]
        if found is not None:
            sys.modules["flash_attn"] = found
